"""A wall clock that is set back while a job runs: the job still ends once, after it began, with one record."""

from tests.one_node import HandClock, OneNode, gpu

from wattkeeper.model import GpuUuid

A = GpuUuid("GPU-0")


def test_its_job_ends_once_and_not_before_it_began() -> None:
    clock = HandClock()
    node = OneNode(gpu(0), clock=clock)
    node.tick()
    node.prolog(1, "0")
    node.go_on(5, GPU_0=3_000)
    clock.off_s = -60.0
    node.epilog(1)
    (record,) = node.store.unrecorded()
    assert record.note.started_at is not None and record.note.ended_at is not None
    assert record.note.ended_at >= record.note.started_at
    assert record.usage[A].energy_mj == 3_000
    node.store.note_recorded([record.note.facts.key])
    node.tick()  # it writes down what was decided at the job's start
    assert not node.store.unrecorded()
    (job,) = node.snapshot().jobs
    assert job.ended_at is not None
    assert job.ended_at >= job.started_at
