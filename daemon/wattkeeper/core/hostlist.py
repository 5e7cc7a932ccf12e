"""Slurm's hostlists: ``node[1-3,07-10]x[1-2],login1`` names 15 hosts.

Grammar as slurm.conf(5) and ``scontrol show hostnames`` have it: comma-separated names, each with any number of
bracketed lists of numbers and ranges; a range's first number gives the width that its numbers are padded to.
"""

import itertools
import re

MAX_HOSTS = 65_536
"""The most names one hostlist may stand for (Slurm's own MAX_SLURM_NODES is 65,533)."""

_NAME = re.compile(r"(?:[A-Za-z0-9._-]|\[[0-9,-]*\])+")
_PART = re.compile(r"\[([0-9,-]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


class HostlistError(ValueError):
    """The text is no hostlist, or stands for more than ``MAX_HOSTS`` names. The message says which part."""


def expand(text: str) -> tuple[str, ...]:
    """The names that a hostlist stands for, in its order and each once.

    Raises ``HostlistError`` for anything that is not one; the work is bounded whatever the text.
    """
    names: dict[str, None] = {}
    for item in _split(text):
        if _NAME.fullmatch(item) is None:
            raise HostlistError(f"{item!r} is not a host name" if item else "a host name is missing")
        names.update(dict.fromkeys(_expand_one(item, MAX_HOSTS - len(names))))
    return tuple(names)


def _split(text: str) -> list[str]:
    """The items between commas that are outside of brackets."""
    items, start, depth = [], 0, 0
    for at, char in enumerate(text):
        if char == "[":
            depth += 1
        elif char == "]":
            depth -= 1
        elif char == "," and depth == 0:
            items.append(text[start:at].strip())
            start = at + 1
        if depth not in {0, 1}:
            raise HostlistError(f"brackets do not pair up at character {at + 1}")
    if depth:
        raise HostlistError("a '[' is not closed")
    return [*items, text[start:].strip()]


def _expand_one(item: str, room: int) -> list[str]:
    choices: list[list[str]] = []
    total = 1
    for found in _PART.finditer(item):
        numbers, literal = found.groups()
        choice = [literal] if literal is not None else _numbers(numbers, room)
        total *= len(choice)
        if total > room:
            raise HostlistError(f"stands for more than {MAX_HOSTS:,} names")
        choices.append(choice)
    return ["".join(parts) for parts in itertools.product(*choices)]


def _numbers(text: str, room: int) -> list[str]:
    """``1-3,07-10`` as the texts of its numbers, at most ``room`` of them."""
    numbers: list[str] = []
    for item in text.split(","):
        found = _RANGE.fullmatch(item)
        if found is None:
            raise HostlistError(f"'[{text}]' is not a list of numbers and ranges")
        first, last = found[1], found[2] or found[1]
        if int(last) < int(first):
            raise HostlistError(f"range '{item}' runs backwards")
        if len(numbers) + int(last) - int(first) >= room:
            raise HostlistError(f"stands for more than {MAX_HOSTS:,} names")
        numbers += [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return numbers
