"""The benchmark's verdicts: what is beyond a bound fails the run, and nothing else does."""

import json
import math

import pytest
from tests.bench.results import Figure, Row, exit_status, percentile
from tests.bench.table import print_json, print_table

HELD = Row("quick", "driver", (Figure("median", 10.0, "ms", 10.0), Figure("mean", 99.0, "ms")), peer="slower: 20 ms")
BEYOND = Row("slow", "none", (Figure("median", 1.0, "ms", 10.0), Figure("p99", 100.1, "ms", 100.0)))
UNMEASURED = Row("elsewhere", "-", note="by other tests")


def test_a_figure_at_its_bound_holds_and_one_without_a_bound_cannot_fail() -> None:
    assert HELD.verdict == "held"
    assert exit_status([HELD]) == 0


@pytest.mark.parametrize("rows", [[BEYOND], [HELD, BEYOND, UNMEASURED]])
def test_one_figure_beyond_its_bound_fails_the_run(rows: list[Row]) -> None:
    assert BEYOND.verdict == "BEYOND"
    assert exit_status(rows) == 1


def test_what_is_no_number_is_not_held() -> None:
    assert not Figure("median", math.nan, "ms", 10.0).held


def test_a_row_without_figures_is_said_to_be_unmeasured_and_does_not_fail() -> None:
    assert UNMEASURED.verdict == "not measured here"
    assert exit_status([UNMEASURED]) == 0


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 50), (99, 99), (100, 100)])
def test_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], percent) == expected


def test_the_table_shows_measured_bound_verdict_and_peer(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([HELD, BEYOND, UNMEASURED], "this machine", 1.0)
    text = capsys.readouterr().out
    for words in ("median 10 ms", "≤ 10 ms", "held", "slower: 20 ms", "p99 100.1 ms", "BEYOND", "not measured here"):
        assert words in text


def test_json_has_the_same_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([HELD, BEYOND], "this machine", 1.0)
    report = json.loads(capsys.readouterr().out)
    assert [row["verdict"] for row in report["rows"]] == ["held", "BEYOND"]
    assert report["rows"][1]["figures"][1] == {"name": "p99", "value": 100.1, "unit": "ms", "bound": 100.0}
