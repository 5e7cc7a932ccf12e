"""What a user asks for in a job's comment: ``power=250W`` among anything else.

The comment is any text a user likes, so reading it never raises and takes time in proportion to its length.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from wattkeeper.core.policy import Amount, Keyword, Percent, Watts
from wattkeeper.text import printable
from wattkeeper.units import parse_percent, parse_power

TEXT_LIMIT = 64
"""The most characters of a malformed request that are kept to show it to its owner."""

GRAMMAR = "250W, 250, 0.25kW, 70%, baseline, default, min, max or a profile's name"

_QUOTES = r"\"'`\u00ab\u00bb\u2018-\u201f\u2039\u203a"
_BREAK = rf"\s\x00-\x20\x7f-\x9f;,{_QUOTES}"
_TOKEN = re.compile(
    rf"(?:\A|(?<=[{_BREAK}]))power=(?P<value>[^{_BREAK}]*)"
    rf"(?P<stray>(?:(?<=[0-9])\s+(?:%|kw|mw)(?=[{_BREAK}]|\Z))?)",
    re.IGNORECASE,
)
PROFILE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
MILLI = re.compile(r"m\s*w\s*\Z", re.IGNORECASE)
_TWO = "asks for two different things"


@dataclass(frozen=True, slots=True)
class ProfileName:
    """A well-formed name; whether the policy has a profile of that name is for the policy to say."""

    name: str


@dataclass(frozen=True, slots=True)
class NoRequest:
    """The comment asks for nothing."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something was asked for that cannot be understood: ``text`` is safe to print, ``reason`` says what is wrong."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A well-formed request: ``text`` as the user wrote it (safe to print) and what it means."""

    text: str
    value: Amount | ProfileName


Request = NoRequest | Malformed | Asked


def parse_comment(comment: str | None) -> Request:
    """The request in a job's comment.

    Looks for the token ``power=VALUE`` (the key in any case) between white space, control characters, ``;``, ``,``,
    quotes and the comment's ends, and for the key ``power`` where the comment is a JSON object. Several that mean
    the same are one; several that differ are malformed. Total and linear: any text, of any length.
    """
    if not comment:
        return NoRequest()
    values = dict.fromkeys((*_tokens(comment), *_json_values(comment)))
    if not values:
        return NoRequest()
    requests = [_parse_value(value, stray) for value, stray in values]
    for request in requests:
        if isinstance(request, Malformed):
            return request
    meanings = {request.value for request in requests if isinstance(request, Asked)}
    if len(meanings) > 1:
        return Malformed(printable(" ".join(f"power={value}" for value, _ in [*values][:8]), TEXT_LIMIT), _TWO)
    return requests[0]


@lru_cache(maxsize=1024)
def parse_amount(text: str) -> Amount | None:
    """``250W``, ``250``, ``0.25kW``, ``70%`` or ``baseline|default|min|max`` in any case; None for anything else.

    Milliwatts are not among them: ``250MW`` would be a quarter of a watt.
    """
    try:
        return Keyword(text.strip().lower())
    except ValueError:
        pass
    percent = parse_percent(text)
    if percent is not None:
        return Percent(percent)
    power = None if MILLI.search(text) else parse_power(text)
    return None if power is None else Watts(power)


def is_profile_name(text: str) -> bool:
    """True for what may name a profile: a letter or ``_``, then letters, digits, ``_ . -``; at most 64 characters.

    Never true for something that ``parse_amount`` understands or that begins like a number.
    """
    return PROFILE.fullmatch(text) is not None and parse_amount(text) is None


_Value = tuple[str, str]
"""A request as written, and the unit that strayed from its number behind a space (``power=70 %``)."""


def _tokens(comment: str) -> Iterator[_Value]:
    for found in _TOKEN.finditer(comment):
        yield found["value"], found["stray"]


class _Object(tuple[tuple[str, object], ...]):
    """A JSON object with all its pairs, of which two may have one key."""

    __slots__ = ()


def _json_values(comment: str) -> Iterator[_Value]:
    """The values of the key ``power`` where the comment is a JSON object; numbers as they are written.

    ``null`` asks for nothing. What cannot be a request (``true``, a list, an object) is given as its JSON text.
    """
    text = comment.strip()
    if not (text.startswith("{") and text.endswith("}")):
        return
    try:
        tree = json.loads(text, object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return
    for key, value in tree:
        if key.lower() != "power" or value is None:
            continue
        yield (value if isinstance(value, str) else f"({_json_type(value)})"), ""


def _json_type(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "an object" if isinstance(value, _Object) else "a list"


def _parse_value(value: str, stray: str) -> Asked | Malformed:
    shown = printable(value + stray, TEXT_LIMIT)
    if not value.strip():
        return Malformed(shown, "nothing follows 'power='")
    if stray:
        return Malformed(shown, "a space stands between the number and its unit")
    amount = parse_amount(value) if len(value) <= TEXT_LIMIT else None
    if amount is not None:
        return Asked(shown, amount)
    if is_profile_name(value):
        return Asked(shown, ProfileName(value))
    return Malformed(shown, f"not a power limit; write {GRAMMAR}")
