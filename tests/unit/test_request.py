"""What users may write into a job's comment, and what becomes of it."""

import json
import time
from collections.abc import Callable

import pytest

from wattkeeper.core.policy import Amount, Keyword, Percent, Watts
from wattkeeper.core.request import (
    TEXT_LIMIT,
    Asked,
    Malformed,
    NoRequest,
    ProfileName,
    is_profile_name,
    parse_amount,
    parse_comment,
)
from wattkeeper.units import BasisPoints, Milliwatts


def watts(number: float) -> Watts:
    return Watts(Milliwatts(int(number * 1000)))


@pytest.mark.parametrize(
    ("comment", "value"),
    [
        ("power=250W", watts(250)),
        ("power=250", watts(250)),
        ("power=0.25kW", watts(250)),
        ("power=70%", Percent(BasisPoints(7000))),
        ("power=66.67%", Percent(BasisPoints(6667))),
        ("POWER=Baseline", Keyword.BASELINE),
        ("power=min", Keyword.MIN),
        ("Power=MAX", Keyword.MAX),
        ("power=default", Keyword.DEFAULT),
        ("power=eco", ProfileName("eco")),
        ("power=99999W", watts(99999)),
        ("ticket 17; power=250w, thanks", watts(250)),
        ("'power=250W'", watts(250)),
        ('note="power=250W"', watts(250)),
        ("“power=250W”", watts(250)),
        ("a\x00power=250W\x1f", watts(250)),
        ("a\npower=250W\nb", watts(250)),
        ("power=250 W", watts(250)),
        ("power=250W power=0.25kW power=250", watts(250)),
        ("mypower=3 power=250W", watts(250)),
    ],
)
def test_understands_a_request(comment: str, value: Amount | ProfileName) -> None:
    request = parse_comment(comment)
    assert isinstance(request, Asked)
    assert request.value == value


@pytest.mark.parametrize(
    ("comment", "value"),
    [
        ('{"power": "250W"}', watts(250)),
        ('{"power": 250}', watts(250)),
        ('{"power": 187.5}', watts(187.5)),
        (' {"a": [1, {"power": 3}], "POWER": "70 %"} ', Percent(BasisPoints(7000))),
        ('{"power": "eco"}', ProfileName("eco")),
        ('{"note": "power=250W"}', watts(250)),
        ('{"power": 250, "Power": "0.25kW"}', watts(250)),
    ],
)
def test_understands_a_json_object(comment: str, value: Amount | ProfileName) -> None:
    request = parse_comment(comment)
    assert isinstance(request, Asked)
    assert request.value == value


@pytest.mark.parametrize(
    "comment",
    [
        None,
        "",
        "nothing here",
        "more power = better",
        "power",
        "a=power=250W",
        "xpower=250W",
        "power:250W",
        '{"a": 1}',
        '{"power": null}',
        '{"a": {"power": 250}}',
        "[]",
        '{"power": 250',
        "{}",
        '"power"',
    ],
)
def test_finds_no_request_where_there_is_none(comment: str | None) -> None:
    assert parse_comment(comment) == NoRequest()


@pytest.mark.parametrize(
    "comment",
    [
        "power=",
        "power=25OW",
        "power=0W",
        "power=0",
        "power=0%",
        "power=-5W",
        "power=1e9W",
        "power=+5W",
        "power=.5kW",
        "power=250MW",
        "power=250mW",
        "power=5%%",
        "power=70 %",
        "power=70\xa0%",
        "power=0.25 kW",
        "power=2_5W",
        "power=\u0662\u0665\u0660W",
        "power=250W power=300W",
        "power=250W power=",
        "power=eco power=250W",
        "power=a/b",
        "power=" + "9" * 5000,
        "power=" + "a" * 65,
        "power=250W.",
        "power==250W",
        '{"power": true}',
        '{"power": [250]}',
        '{"power": {}}',
        '{"power": -5}',
        '{"power": 1e3}',
        '{"power": ""}',
        '{"power": 250, "Power": 300}',
        '{"power": 250, "note": "power=300W"}',
    ],
)
def test_calls_the_rest_malformed(comment: str) -> None:
    request = parse_comment(comment)
    assert isinstance(request, Malformed)
    assert request.reason


def test_shows_a_malformed_request_safely() -> None:
    request = parse_comment("power=\u202e25OW\u200b" + "x" * 500)
    assert isinstance(request, Malformed)
    assert request.text.startswith(r"\u202e25OW\u200bxxx")
    assert len(request.text) <= TEXT_LIMIT
    assert request.text.endswith("…")


def test_says_why() -> None:
    two = parse_comment("power=250W power=300W")
    assert two == Malformed("power=250W power=300W", "asks for two different things")
    space = parse_comment("power=70 %")
    assert space == Malformed("70 %", "a space stands between the number and its unit")


def seconds_for(comment: str) -> float:
    """Of the processor: what else runs on it counts for nothing."""

    def once() -> float:
        start = time.process_time()
        parse_comment(comment)
        return time.process_time() - start

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    "comment",
    [
        lambda n: "{" * 10 * n + "}",
        lambda n: '{"power":' * n + "1" + "}" * n,
        lambda n: '{"power": ' + "[" * n + "]" * n + "}",
        lambda n: '{"power": ' + "9" * 10 * n + "}",
        lambda n: "power=" * n,
        lambda n: "power=1 " * n,
        lambda n: " ".join(f"power={at}" for at in range(1, n)),
        lambda n: "power=7" + " " * 10 * n,
        lambda n: ("power=7" + "\xa0" * 50) * (n // 10),
        lambda n: "\ud800power=5W\udfff" * n,
    ],
)
def test_survives_hostile_comments(comment: Callable[[int], str]) -> None:
    """In time that grows with the length and not with its square: four times as much does not take 16 times as long."""
    parse_comment(comment(1))
    assert seconds_for(comment(100_000)) < 10 * max(seconds_for(comment(25_000)), 0.001)


def test_amounts_are_not_profile_names() -> None:
    for word in ("baseline", "MIN", "250W", "70%", "25OW", "-x", ".x", "a b", "", "x" * 65, "é"):
        assert not is_profile_name(word)
    for word in ("eco", "_x", "V100.slow-1", "Baselines"):
        assert is_profile_name(word)
        assert parse_amount(word) is None


def test_json_text_of_any_value_is_read_like_the_token() -> None:
    for value in ("250W", "70%", "eco", "min"):
        assert parse_comment(json.dumps({"power": value})) == parse_comment(f"power={value}")
