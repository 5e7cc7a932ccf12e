"""Requests for any comment: reading never fails, and what a user asks for is found in whatever stands around it."""

import json
import string

from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.policy import Keyword, Percent, Watts
from wattkeeper.core.request import (
    TEXT_LIMIT,
    Asked,
    Malformed,
    NoRequest,
    ProfileName,
    is_profile_name,
    parse_comment,
)
from wattkeeper.text import printable
from wattkeeper.units import BasisPoints, Milliwatts

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)
near_misses = st.lists(
    st.sampled_from(
        ["power", "POWER", "=", "250", "W", "k", "%", " ", ";", '"', "{", "}", ":", ",", "eco", "\n", "0", "."]
    ),
    max_size=14,
).map("".join)


@st.composite
def values(draw: st.DrawFn) -> tuple[str, Watts | Percent | Keyword | ProfileName]:
    """A well-formed value as text, and what it means."""
    kind = draw(st.integers(0, 4))
    if kind == 0:
        whole = draw(st.integers(1, 999_999_999))
        return f"{whole}{draw(st.sampled_from(['W', 'w', '']))}", Watts(Milliwatts(whole * 1000))
    if kind == 1:
        milli = draw(st.integers(1, 10**9))
        text = f"{milli // 10**6}.{milli % 10**6:06d}"
        return text + draw(st.sampled_from(["kW", "KW", "kw"])), Watts(Milliwatts(milli))
    if kind == 2:
        points = draw(st.integers(1, 999_999))
        return f"{points // 100}.{points % 100:02d}%", Percent(BasisPoints(points))
    if kind == 3:
        word = draw(st.sampled_from(list(Keyword)))
        return draw(st.sampled_from([word.value, word.value.upper(), word.value.title()])), word
    name = draw(st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=64).filter(is_profile_name))
    return name, ProfileName(name)


noise = st.text(max_size=40).filter(lambda text: "power" not in text.lower())
breaks = st.sampled_from([" ", "\t", "\n", "\x00", ";", ",", '"', "'", "`", "\u00a0", "\u201c"])


@given(any_text | near_misses)
def test_reads_any_text(comment: str) -> None:
    request = parse_comment(comment)
    assert isinstance(request, (NoRequest, Malformed, Asked))
    if not isinstance(request, NoRequest):
        assert len(request.text) <= TEXT_LIMIT
        assert request.text == "" or request.text.isprintable()
    assert parse_comment(comment) == request


@given(values(), noise, noise, breaks, breaks, st.sampled_from(["power", "POWER", "Power", "pOwEr"]))
def test_finds_the_request_in_any_noise(
    value: tuple[str, Watts | Percent | Keyword | ProfileName], before: str, after: str, left: str, right: str, key: str
) -> None:
    text, meaning = value
    # a unit alone after the request would read as one that strayed from its number, and is told to the user
    request = parse_comment(f"{before}{left}{key}={text}{right}; {after}")
    assert isinstance(request, Asked)
    assert request.value == meaning


@given(values(), st.dictionaries(noise, st.integers() | noise | st.none() | st.lists(st.integers()), max_size=4))
def test_finds_the_request_in_any_json_object(
    value: tuple[str, Watts | Percent | Keyword | ProfileName], others: dict[str, object]
) -> None:
    text, meaning = value
    request = parse_comment(json.dumps({**others, "power": text}))
    assert isinstance(request, Asked)
    assert request.value == meaning


@given(values(), values())
def test_two_requests_are_one_or_malformed(
    one: tuple[str, Watts | Percent | Keyword | ProfileName], two: tuple[str, Watts | Percent | Keyword | ProfileName]
) -> None:
    request = parse_comment(f"power={one[0]} power={two[0]}")
    assert isinstance(request, Asked) is (one[1] == two[1])


@given(noise)
def test_finds_nothing_in_noise(comment: str) -> None:
    assert parse_comment(comment) == NoRequest()


@given(any_text, st.integers(1, 100))
def test_printable_is_one_visible_line_of_bounded_length(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert printable(text, 10_000) == shown or shown.endswith("…")
