"""The line that a job's owner reads."""

from dataclasses import replace
from datetime import UTC

import pytest

from wattkeeper.agent.message import message
from wattkeeper.config.policy import parse_policies
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.resolve import resolve
from wattkeeper.model import Conditions, Decision, GpuContext, GpuInfo, GpuUuid, JobFacts, JobKey
from wattkeeper.snapshot import CapView
from wattkeeper.units import Milliwatts

POLICY, _ = parse_policies(
    [
        (
            "p.yaml",
            """
version: 1
caps:
  - {name: debug, when: {partition: debug}, cap: 60%}
  - {name: everyone, cap: baseline, requests: {min: min, max: 250W}}
ceilings:
  - {name: hot, when: {partition: hot}, cap: 210W}
""",
        )
    ]
)
SET = CapView(None)
UUIDS = [GpuUuid("GPU-a"), GpuUuid("GPU-b")]


def line(comment: str | None, partition: str = "gpu", baseline_w: int = 700, became: CapView = SET) -> str:
    decisions: dict[GpuUuid, Decision] = {}
    caps: dict[GpuUuid, CapView] = {}
    for minor, uuid in enumerate(UUIDS):
        info = GpuInfo(uuid, minor, minor, "H100", Milliwatts(700_000), Milliwatts(200_000), Milliwatts(700_000))
        context = GpuContext(info, Milliwatts(baseline_w * 1000))
        job = JobFacts(JobKey("lab", 1, "r0"), uid=1, partition=partition, comment=comment, gpus=2)
        target = arbitrate([resolve(job, context, POLICY, Conditions(0.0))], context, POLICY)
        decisions[uuid], caps[uuid] = target.decisions[0], replace(became, decided_mw=target.limit_mw)
    return message({uuid: minor for minor, uuid in enumerate(UUIDS)}, decisions, caps)


@pytest.mark.parametrize(
    ("comment", "partition", "words"),
    [
        (None, "gpu", "GPUs 0,1 capped at 700 W each (rule 'everyone')"),
        ("power=240W", "gpu", "GPUs 0,1 capped at 240 W each (you asked 240W; rule 'everyone' grants it)"),
        (
            "power=300W",
            "gpu",
            "GPUs 0,1 capped at 250 W each (you asked 300W; rule 'everyone' allows up to 250 W)",
        ),
        ("power=100W", "gpu", "GPUs 0,1 capped at 200 W each (you asked 100W; rule 'everyone' allows no less)"),
        ("power=300W", "debug", "GPUs 0,1 capped at 420 W each (you asked 300W; rule 'debug' does not allow that)"),
        (
            "power=25OW",
            "debug",
            "GPUs 0,1 capped at 420 W each (you asked 25OW, which is malformed, as if nothing was asked; rule 'debug')",
        ),
        (
            None,
            "hot",
            "GPUs 0,1 capped at 210 W each (rule 'everyone'; ceiling 'hot': at most 210 W: binds)",
        ),
    ],
)
def test_the_line_says_what_was_got_and_why(comment: str | None, partition: str, words: str) -> None:
    assert line(comment, partition) == f"wattkeeper: {words}"


@pytest.mark.parametrize(
    ("became", "words"),
    [
        (
            CapView(None, observed=True),
            "GPUs 0,1 would be capped at 240 W each (GRANTED; only observed, not written)",
        ),
        (
            CapView(None, trouble="an administrator holds it"),
            "GPUs 0,1 not capped at 240 W each: an administrator holds it (GRANTED)",
        ),
        (
            CapView(None, Milliwatts(300_000), trouble="not set yet"),
            "GPUs 0,1 not capped at 240 W each: not set yet, last set to 300 W (GRANTED)",
        ),
    ],
)
def test_the_line_says_what_was_not_set_and_why(became: CapView, words: str) -> None:
    granted = "you asked 240W; rule 'everyone' grants it"
    assert line("power=240W", became=became) == "wattkeeper: " + words.replace("GRANTED", granted)


def test_the_line_names_the_baseline_where_that_binds() -> None:
    assert line(None, "debug", baseline_w=400).endswith("device 420 W is above the baseline: 400 W)")


def test_there_is_no_line_for_a_job_without_gpus() -> None:
    assert message({}, {}, {}) == ""


def test_the_line_says_until_when_a_ceiling_binds() -> None:
    info = GpuInfo(UUIDS[0], 0, 0, "H100", Milliwatts(700_000), Milliwatts(200_000), Milliwatts(700_000))
    context = GpuContext(info, Milliwatts(700_000))
    job = JobFacts(JobKey("lab", 1, "r0"), uid=1, partition="hot", gpus=1)
    (decision,) = arbitrate([resolve(job, context, POLICY, Conditions(0.0))], context, POLICY).decisions
    timed = replace(decision, next_change=3_600.0)
    words = message({UUIDS[0]: 0}, {UUIDS[0]: timed}, {UUIDS[0]: CapView(Milliwatts(210_000))}, 0.0, UTC)
    assert words.endswith("; ceiling 'hot': at most 210 W: binds, until 01:00 UTC at least)")
    words = message({UUIDS[0]: 0}, {UUIDS[0]: timed}, {UUIDS[0]: CapView(Milliwatts(700_000))}, 0.0, UTC)
    assert "until" not in words
