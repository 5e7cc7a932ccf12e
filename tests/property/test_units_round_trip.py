"""What is written can be read back, and nothing else is read."""

from hypothesis import given
from hypothesis import strategies as st

from wattkeeper import units
from wattkeeper.units import BasisPoints, Milliwatts


@given(st.integers(1, 10**11))
def test_power_is_read_as_it_is_written(milliwatts: int) -> None:
    assert units.parse_power(units.format_power(Milliwatts(milliwatts))) == milliwatts


@given(st.integers(1, 99_999))
def test_percent_is_read_as_it_is_written(points: int) -> None:
    assert units.parse_percent(units.format_percent(BasisPoints(points))) == points


@given(st.integers(1, 10_000), st.integers(1, 10**7))
def test_a_share_is_never_more_than_it_says(points: int, whole: int) -> None:
    part = units.percent_of(BasisPoints(points), Milliwatts(whole))
    assert part * 10_000 <= whole * points < (part + 1) * 10_000


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_none(text: str) -> None:
    power, percent, seconds = units.parse_power(text), units.parse_percent(text), units.parse_duration(text)
    assert power is None or power > 0
    assert percent is None or percent > 0
    assert seconds is None or seconds >= 0
    assert power is None or percent is None
