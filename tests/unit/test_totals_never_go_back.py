"""What counters show outlives a SIGKILL: one that went back would be counted once more, whole, by all who scrape it."""

from collections.abc import Mapping, Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.one_node import AtLast, OneNode, gpu, shared

from wattkeeper.exporters.prometheus import Exporter
from wattkeeper.model import GpuUuid, Holding, JobKey
from wattkeeper.slurm.hook_event import EventKind
from wattkeeper.slurm.processes import Processes

A = GpuUuid("GPU-0")
TOTALS = ("account_energy_joules", "job_gpu_energy_joules", "gpu_idle_energy_joules", "gpu_unattributed_energy_joules")


class ByPid(Processes):
    """A process has its job's number."""

    def __init__(self) -> None:
        return

    def weigh(self, use_by_pid: Mapping[int, int], holders: Sequence[Holding]) -> dict[JobKey, int]:
        return {holding.job.key: use_by_pid.get(holding.job.key.job_id, 0) for holding in holders}


def totals(node: OneNode) -> dict[tuple[object, ...], float]:
    """Every counter of energy, as somebody sees it who has been here before."""
    exporter = Exporter(node.snapshot, "full", node.clock.mono)
    exporter.render("Prometheus")
    node.clock.at_mono += 0.001
    families = text_string_to_metric_families(exporter.render("Prometheus")[0].decode())
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        if family.name.removeprefix("wattkeeper_") in TOTALS
        for sample in family.samples
    }


def a_job(node: OneNode, job_id: int) -> None:
    node.prolog(job_id, "0", SLURM_JOB_ACCOUNT=f"a{job_id}")
    node.tick()


def killed_with(spooled: EventKind) -> OneNode:
    """With what the last tick charged on its way to the ledger, and an event in the spool after that."""
    node = OneNode(gpu(0), writer=AtLast)
    node.tick()
    a_job(node, 1)
    node.go_on(3600, GPU_0=1_000_000_000)
    node.epilog(1)
    if spooled is EventKind.EPILOG:
        a_job(node, 2)
    node.go_on(5, GPU_0=3_500_000)
    node.tick()
    return node


@pytest.mark.parametrize("kind", EventKind)
def test_where_a_job_came_or_went_while_there_was_no_agent(kind: EventKind) -> None:
    node = killed_with(kind)
    before = totals(node)
    node.go_on(1)
    when = node.ago(0)
    node.start()
    node.post(kind, 2, {"SLURM_JOB_GPUS": "0", "SLURM_JOB_ACCOUNT": "a2"}, when)
    node.go_on(1, GPU_0=700_000)
    node.tick()
    after = totals(node)
    assert {name: (total, after[name]) for name, total in before.items() if after.get(name, total) < total} == {}
    assert sum(total for name, total in after.items() if "job" not in str(name[0])) == 1_004_200.0


def test_where_the_card_cannot_be_read_at_once() -> None:
    node = killed_with(EventKind.EPILOG)
    before = totals(node)
    node.start()
    node.gpus.gpus[A].lost = True
    node.tick()
    after = totals(node)
    assert all(after[name] >= total for name, total in before.items() if name in after)


def test_where_what_was_divided_by_use_could_be_divided_otherwise() -> None:
    """No driver tells twice what each process used: such a charge does not wait."""
    node = OneNode(gpu(0), gres=shared(1), writer=AtLast, processes=ByPid())
    node.tick()
    a_job(node, 1)
    a_job(node, 2)
    node.gpus.gpus[A].use_by_pid = {1: 100}
    node.go_on(9, GPU_0=6_000_000)
    node.tick()
    of_first = ("wattkeeper_account_energy_joules_total", ("account", "a1"), ("domain", "gpu"), ("partition", ""))
    assert totals(node)[of_first] == 6_000.0
    node.start()
    node.gpus.gpus[A].use_by_pid = {2: 100}
    node.go_on(1, GPU_0=100_000)
    node.tick()
    assert totals(node)[of_first] == 6_000.0


def test_what_waits_is_shown_once_it_is_written() -> None:
    node = killed_with(EventKind.EPILOG)
    before = totals(node)
    node.epilog(2)
    assert sum(totals(node).values()) >= sum(before.values()) + 3_500.0
