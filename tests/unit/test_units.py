"""Power and energy as people write and read them."""

import pytest

from wattkeeper import units
from wattkeeper.units import BasisPoints, Millijoules, Milliwatts


@pytest.mark.parametrize(
    ("text", "power"),
    [
        ("250W", 250000),
        ("250", 250000),
        ("0.25kW", 250000),
        ("0.25KW", 250000),
        ("250 w", 250000),
        ("187.5W", 187500),
        ("250000mW", 250000),
        (" 1 ", 1000),
        ("0.001W", 1),
    ],
)
def test_reads_power(text: str, power: int) -> None:
    assert units.parse_power(text) == power


@pytest.mark.parametrize(
    "text",
    [
        "",
        "W",
        "0",
        "0W",
        "0.0001W",
        "-5",
        "+5",
        "1e3",
        "25OW",
        "250WW",
        "2,5W",
        ".5",
        "5.",
        "9" * 10,
        "\u0662\u0665\u0660",
        "70%",
    ],
)
def test_reads_no_power_where_there_is_none(text: str) -> None:
    assert units.parse_power(text) is None


@pytest.mark.parametrize(("text", "points"), [("70%", 7000), ("66.67 %", 6667), ("100%", 10_000), ("0.01%", 1)])
def test_reads_percent(text: str, points: int) -> None:
    assert units.parse_percent(text) == points


@pytest.mark.parametrize("text", ["", "%", "70", "0%", "0.001%", "-1%", "12345%", "1e1%"])
def test_reads_no_percent_where_there_is_none(text: str) -> None:
    assert units.parse_percent(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("5s", 5.0), ("10m", 600.0), ("2h", 7200.0), ("1d", 86_400.0), ("1.5h", 5400.0)],
)
def test_reads_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "5 minutes", "1w", "5S"])
def test_reads_no_duration_where_there_is_none(text: str) -> None:
    assert units.parse_duration(text) is None


def test_writes_what_people_read() -> None:
    assert units.format_power(Milliwatts(250_000)) == "250 W"
    assert units.format_power(Milliwatts(187_500)) == "187.5 W"
    assert units.format_percent(BasisPoints(7000)) == "70 %"
    assert units.format_percent(BasisPoints(6667)) == "66.67 %"
    assert units.format_energy(Millijoules(950_000)) == "950 J"
    assert units.format_energy(Millijoules(12_300_000)) == "12.3 kJ"
    assert units.format_energy(Millijoules(4_320_000_000)) == "1.20 kWh"
    assert units.format_duration(45) == "45 s"
    assert units.format_duration(720) == "12 min"
    assert units.format_duration(7500) == "2 h 5 min"
    assert units.format_duration(7200) == "2 h"


def test_a_percentage_never_gives_more_than_it_says() -> None:
    assert units.percent_of(BasisPoints(6667), Milliwatts(300_000)) == 200_010
    assert units.percent_of(BasisPoints(3333), Milliwatts(1001)) == 333


def test_base_units_for_prometheus() -> None:
    assert units.watts(Milliwatts(187_500)) == 187.5
    assert units.joules(Millijoules(1_500)) == 1.5
