"""What an agent that starts makes of the processes that it finds on its node."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from tests.one_node import OneNode, gpu

from wattkeeper.agent import recover
from wattkeeper.model import GpuUuid

A = GpuUuid("GPU-0")
WEEK_S = 7 * 86_400.0


@dataclass(frozen=True)
class Running:
    """Jobs with processes here, each on GPU 0."""

    jobs: tuple[int, ...]

    async def running(self) -> Mapping[int, Mapping[str, str]]:
        common = {"SLURM_JOB_UID": "1000", "SLURM_CLUSTER_NAME": "c", "SLURM_JOB_GPUS": "0"}
        return {job: {**common, "SLURM_JOB_ID": str(job)} for job in self.jobs}


def restarted(node: OneNode, *jobs: int) -> list[tuple[int, str]]:
    """Who holds GPU 0 once an agent that has just started has looked at the processes of these jobs."""
    node.start()
    node.tick()
    asyncio.run(recover.look(node.state, node._events, Running(jobs), node.clock))
    return [(owner.job_id, owner.run) for owner in node.state.owners(A)]


def test_a_job_that_no_hook_told_of_is_seen() -> None:
    node = OneNode(gpu(0))
    assert restarted(node, 1) == [(1, "seen")]
    assert node.epilog(1).text == "job 1 ended"


def test_processes_that_outlive_their_epilog_hold_nothing() -> None:
    node = OneNode(gpu(0))
    node.tick()
    node.prolog(1, "0")
    node.go_on(5, GPU_0=10)
    node.epilog(1)
    for later_s in (0.0, 3_600.0, WEEK_S / 2):
        node.go_on(later_s)
        assert restarted(node, 1) == []
    node.go_on(5, GPU_0=500_000)
    node.tick()
    (record,) = node.store.unrecorded()
    assert (record.note.facts.key.run, record.usage[A].energy_mj) == ("r0", 10)
    assert node.state.gpus[A].idle_mj == 500_000
    assert restarted(node, 1, 2) == [(2, "seen")]


def test_a_job_whose_name_was_used_long_ago_is_seen() -> None:
    node = OneNode(gpu(0))
    node.prolog(1, "0")
    node.epilog(1)
    node.go_on(WEEK_S + 60)
    assert restarted(node, 1) == [(1, "seen")]
    assert node.epilog(1).text == "job 1 ended"
