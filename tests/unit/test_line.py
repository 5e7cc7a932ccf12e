"""The line that says what a job used."""

from typing import Any

import pytest

from wattkeeper.api.line import mean_w, percent, usage_line


def gpu(minor: int, **more: Any) -> dict[str, Any]:
    return {"gpu": minor, "energy_j": 155_000.0, "seconds": 500.0, "capped_s": 60.0, **more}


def job(*gpus: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"job_id": 1234, "node": "n1", "gpus": list(gpus), **more}


@pytest.mark.parametrize(
    ("answer", "num_nodes", "line"),
    [
        (job(gpu(1), gpu(0)), 1, "used 310.0 kJ (GPUs 0,1: mean 310 W each, held back by the cap 12 % of the time)"),
        (job(gpu(0)), 2, "used 155.0 kJ on n1 (GPU 0: mean 310 W, held back by the cap 12 % of the time)"),
        (job(gpu(0, capped_s=None)), 1, "used 155.0 kJ (GPU 0: mean 310 W)"),
        (job(gpu(0, seconds=None, capped_s=None)), None, "used 155.0 kJ (GPU 0)"),
        (
            job(gpu(0), gpu(1, energy_j=None, seconds=None, capped_s=None)),
            1,
            "used 155.0 kJ (GPUs 0,1: mean 310 W each, held back by the cap 12 % of the time)",
        ),
    ],
)
def test_says_what_is_known(answer: dict[str, Any], num_nodes: int | None, line: str) -> None:

    assert usage_line(answer, num_nodes) == f"wattkeeper: job 1234 {line}"


def test_says_what_is_not_known() -> None:
    nothing = gpu(0, energy_j=None, seconds=None, capped_s=None)
    assert usage_line(job(nothing)) == "wattkeeper: job 1234: its energy is not known (GPU 0)"
    assert usage_line(job()) == "wattkeeper: job 1234: no GPU on this node"


def test_there_is_no_mean_of_less_than_a_second() -> None:
    short = gpu(0, energy_j=180.8, seconds=0.2, capped_s=None)
    assert usage_line(job(short)) == "wattkeeper: job 1234 used 181 J (GPU 0)"
    assert mean_w([short]) is None
    assert mean_w([gpu(0, energy_j=700.0, seconds=1.0)]) == 700.0


def test_the_sum_counts_gpus_that_the_agent_cannot_name() -> None:
    assert usage_line(job(gpu(0), total={"energy_j": 4_320_000.0})).startswith("wattkeeper: job 1234 used 1.20 kWh (")
    assert usage_line(job(total={"energy_j": 950.0})) == "wattkeeper: job 1234 used 950 J"


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.001, "< 1 %"), (0.12, "12 %"), (0.996, "> 99 %"), (1, "100 %")]
)
def test_a_little_is_not_nothing_and_almost_all_not_all(share: float, text: str) -> None:
    assert percent(share) == text
