"""A cluster that is set up anew counts its jobs from 1 again: the same name, another job."""

import json
from pathlib import Path

import pytest
from tests.one_node import OneNode, gpu

from wattkeeper.ledger import schema
from wattkeeper.ledger.records import Records
from wattkeeper.model import GpuUuid, JobKey
from wattkeeper.protocols import Change
from wattkeeper.slurm.hook_event import EventKind

A = GpuUuid("GPU-0")
DAY_S = 86_400.0


def ended(restarts: str = "0") -> OneNode:
    """A node on which job 1 of account ``a`` has used 1 J, and has its record."""
    node = OneNode(gpu(0))
    node.tick()
    node.prolog(1, "0", SLURM_JOB_ACCOUNT="a", SLURM_JOB_RESTART_COUNT=restarts)
    node.go_on(5, GPU_0=1_000)
    node.epilog(1, SLURM_JOB_RESTART_COUNT=restarts)
    node.store.note_recorded([record.note.facts.key for record in node.store.unrecorded()])
    return node


def runs_again(node: OneNode) -> None:
    """Another job 1 uses 2 J, for account ``b``, and ends."""
    assert node.prolog(1, "0", SLURM_JOB_ACCOUNT="b").outcome == "applied"
    assert [job.ended_at for job in node.snapshot().jobs if job.key.run == "r0"] == [None]
    node.go_on(5, GPU_0=2_000)
    assert node.epilog(1).outcome == "applied"
    (record,) = node.store.unrecorded()
    assert (record.note.facts.account, record.usage[A].energy_mj) == ("b", 2_000)
    assert record.note.ended_at is not None
    assert 5 <= record.note.ended_at - record.note.started_at <= 7
    assert not node.state.holdings


@pytest.mark.parametrize("restarts", ["0", "2"])
@pytest.mark.parametrize("later_s", [600.0, 60 * DAY_S])
def test_a_job_of_that_name_later_is_another(restarts: str, later_s: float) -> None:
    """After ten minutes, without a tick, the old one is still shown."""
    node = ended(restarts)
    node.go_on(later_s)
    runs_again(node)
    assert node.prolog(1, "0").outcome == "late"


@pytest.mark.parametrize("set_back_s", [0.0, 3_600.0, -3_600.0])
def test_it_is_after_a_restart_too(set_back_s: float) -> None:
    node = ended()
    node.go_on(DAY_S)
    node.clock.off_s -= set_back_s
    node.start()
    node.tick()
    runs_again(node)


def test_it_has_a_record_of_its_own_on_the_day_of_a_reboot(tmp_path: Path) -> None:
    node = OneNode(gpu(0))
    for account in ("a", "b"):
        node.tick()
        node.prolog(1, "0", SLURM_JOB_ACCOUNT=account)
        node.go_on(5, GPU_0=1_000)
        node.epilog(1)
        for _ in range(2):  # an agent that was killed before it noted them writes them again
            Records(tmp_path / "records", lambda _: None).write(node.store.unrecorded())
        node.store.note_recorded([record.note.facts.key for record in node.store.unrecorded()])
        node.clock.boot = "boot-2"
        node.start()
    lines = [line for file in sorted((tmp_path / "records").iterdir()) for line in file.read_text().splitlines()]
    assert [json.loads(line)["account"] for line in lines] == ["a", "b"]


def test_a_start_that_was_overtaken_by_its_end_is_late_before_a_restart_and_after() -> None:
    node = ended()
    before = node.ago(30)
    assert node.prolog(1, "0").outcome == "late"
    node.start()
    assert node.prolog(1, "0").outcome == "late"
    node.clock.off_s -= 3_600.0
    node.go_on(DAY_S)
    node.start()
    assert node.post(EventKind.PROLOG, 1, {"SLURM_JOB_GPUS": "0"}, before).outcome == "late"
    assert not node.state.holdings


def test_an_end_whose_start_was_not_told_is_remembered_from_when_it_came() -> None:
    node = ended()
    node.go_on(60 * DAY_S)
    before = node.ago(0)
    node.epilog(1)
    node.start()
    assert node.post(EventKind.PROLOG, 1, {"SLURM_JOB_GPUS": "0"}, before).outcome == "late"


def test_the_runs_that_ended_last_are_remembered_over_a_restart() -> None:
    node = OneNode(gpu(0))
    many = tuple(JobKey("c", number, "r0") for number in range(1, schema.OVER_KEPT + 100))
    for number, key in enumerate(many):
        node.store.commit(Change("boot-1", node.clock.wall() + number / 100, over=(key,)))
    node.go_on(len(many) / 100)
    node.start()
    node.epilog(9_999_999)
    assert [node.prolog(key.job_id, "0").outcome for key in many[-100:]] == ["late"] * 100
