"""A GPU that was lost, with a job on it, before the agent started: the job ends as any other does."""

import pytest
from tests.fakes import FakeGpu
from tests.one_node import AS_ASKED, OneNode, gpu

from wattkeeper.api.present import status
from wattkeeper.exporters.prometheus import Exporter
from wattkeeper.model import GpuUuid

A, B = GpuUuid("GPU-0"), GpuUuid("GPU-1")


def with_a_job() -> OneNode:
    """A job on both GPUs, which have used 5 J each."""
    node = OneNode(gpu(0), gpu(1), policy=AS_ASKED)
    node.tick()
    node.prolog(1, "0,1", SLURM_JOB_COMMENT="power=300W")
    node.go_on(1, GPU_0=5_000, GPU_1=5_000)
    node.tick()
    return node


def restarted_without(node: OneNode, *lost: GpuUuid) -> dict[GpuUuid, FakeGpu]:
    found = {uuid: node.gpus.gpus.pop(uuid) for uuid in lost}
    node.start()
    return found


@pytest.mark.parametrize("lost", [(B,), (A, B)], ids=["one of two", "all"])
def test_its_job_is_shown_and_ends(lost: tuple[GpuUuid, ...]) -> None:
    node = with_a_job()
    restarted_without(node, *lost)
    node.tick()
    (job,) = status(node.snapshot(), 0)["jobs"]
    assert len(job["gpus"]) == 2 - len(lost)
    page, _ = Exporter(node.snapshot, "full", node.clock.mono).render("Prometheus")
    assert b'slurm_job_id="1"' in page

    assert node.epilog(1).outcome == "applied"
    assert not node.state.holdings
    assert not node.store.load().holdings
    (record,) = node.store.unrecorded()
    assert {uuid: usage.energy_mj for uuid, usage in record.usage.items()} == {A: 5_000, B: 5_000}
    assert {uuid: note.minor for uuid, note in record.note.gpus.items()} == {A: 0, B: 1}
    assert all(one.reading.requested_mw == 700_000 for one in node.gpus.gpus.values())


def test_what_it_drew_meanwhile_is_nobodys_once_it_is_back() -> None:
    node = with_a_job()
    lost = restarted_without(node, B)
    node.epilog(1)
    node.gpus.gpus.update(lost)
    node.go_on(60, GPU_1=7_000)
    node.start()
    node.tick()
    assert node.gaps(1) == {"outage": 1}
    view = next(one for one in node.snapshot().gpus if one.info.uuid == B)
    assert view.unattributed_mj == 7_000
