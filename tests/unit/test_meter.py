"""What the agent charges to whom, on GPUs in memory: sharing, MIG, cards without a counter, gaps."""

import time
from collections.abc import Mapping, Sequence

import pytest
from tests.one_node import OneNode, gpu, shared

from wattkeeper.core.holdings import Moment
from wattkeeper.exporters.prometheus import Exporter
from wattkeeper.model import Basis, EnergySource, GpuUuid, Holding, JobKey, Usage
from wattkeeper.privileged.evidence import evidence_of
from wattkeeper.protocols import JobNote
from wattkeeper.slurm.hook_event import EventKind
from wattkeeper.slurm.processes import Processes
from wattkeeper.units import Milliwatts

A = GpuUuid("GPU-0")


class Table(Processes):
    """Processes whose numbers begin with their job's: 70 and 71 are job 7's."""

    def job_of(self, pid: int, uids: Mapping[int, int]) -> int | None:
        return pid // 10


class Hanging(Processes):
    """A process whose files cannot be read, as one that a dead file system keeps."""

    def weigh(self, use_by_pid: Mapping[int, int], holders: Sequence[Holding]) -> dict[JobKey, int] | None:
        time.sleep(0.5)
        return None


def usage(node: OneNode, job_id: int) -> Usage:
    (job,) = (job for key, job in node.state.jobs.items() if key.job_id == job_id)
    return job.usage[A]


def sharing(processes: Processes) -> OneNode:
    """Two jobs on GPU 0, at the beginning of an interval."""
    node = OneNode(gpu(0), processes=processes, gres=shared(1))
    node.tick()
    node.prolog(7, "0")
    node.prolog(8, "0")
    return node


def test_two_jobs_on_a_gpu_pay_for_what_they_use_of_it() -> None:
    node = sharing(Table(evidence_of))
    node.gpus.gpus[A].use_by_pid = {70: 50, 71: 40, 80: 10}
    node.go_on(1, GPU_0=1_000)
    node.tick()
    assert node.used_mj(A) == {7: 900, 8: 100}
    assert usage(node, 8).bases == {Basis.USE}


def test_where_nothing_tells_them_apart_they_pay_alike_and_that_is_said() -> None:
    node = sharing(Table(evidence_of))
    for use in (None, {}, {990: 100}, {70: 0, 80: 0}):
        node.gpus.gpus[A].use_by_pid = use
        node.go_on(1, GPU_0=1_000)
        node.tick()
    assert node.used_mj(A) == {7: 2_000, 8: 2_000}
    assert usage(node, 8).bases == {Basis.EVEN}


def test_use_counts_for_the_interval_it_was_measured_in_and_no_other() -> None:
    node = sharing(Table(evidence_of))
    node.gpus.gpus[A].use_by_pid = {70: 100}
    node.go_on(1, GPU_0=1_000)
    node.tick()
    node.gpus.gpus[A].use_by_pid = None
    node.go_on(1, GPU_0=1_000)
    node.tick()
    assert node.used_mj(A) == {7: 1_500, 8: 500}
    assert usage(node, 8).bases == {Basis.USE, Basis.EVEN}


def test_the_last_interval_of_a_shared_gpu_is_divided_by_use_too() -> None:
    node = sharing(Table(evidence_of))
    node.gpus.gpus[A].use_by_pid = {70: 30, 80: 10}
    node.go_on(1, GPU_0=1_000)
    node.epilog(7)
    node.go_on(1, GPU_0=300)
    node.tick()
    assert node.used_mj(A) == {7: 750, 8: 550}
    assert usage(node, 8).bases == {Basis.USE, Basis.SOLE}


def test_processes_that_hang_hold_nobody_up() -> None:
    node = sharing(Hanging(evidence_of))
    node.gpus.gpus[A].use_by_pid = {70: 100}
    for _ in range(2):
        node.go_on(1, GPU_0=1_000)
        node.tick()
    assert node.used_mj(A) == {7: 1_000, 8: 1_000}


def test_seven_instances_pay_for_one_gpu_once_by_their_slices() -> None:
    instances = tuple((f"MIG-{place}", slices) for place, slices in enumerate((3, 2, 1, 1)))
    node = OneNode(gpu(0, instances=instances))
    node.tick()
    for place in range(4):
        node.prolog(place + 1, "0", visible=f"MIG-{place}")
    node.go_on(1, GPU_0=7_000)
    node.tick()
    assert node.used_mj(A) == {1: 3_000, 2: 2_000, 3: 1_000, 4: 1_000}
    assert usage(node, 4).bases == {Basis.SLICES}
    node.start()
    node.go_on(1, GPU_0=7_000)
    node.tick()
    assert node.used_mj(A) == {1: 6_000, 2: 4_000, 3: 2_000, 4: 2_000}


def test_a_whole_holder_beside_an_instance_leaves_slices_out_of_it() -> None:
    node = OneNode(gpu(0, instances=(("MIG-0", 3), ("MIG-1", 4))))
    node.tick()
    node.prolog(1, "0", visible="MIG-0")
    node.prolog(2, "0", visible="GPU-0")
    node.go_on(1, GPU_0=1_000)
    node.tick()
    assert node.used_mj(A) == {1: 500, 2: 500}
    assert usage(node, 2).bases == {Basis.EVEN}


def without_counter() -> OneNode:
    node = OneNode(gpu(0))
    node.show("GPU-0", energy_mj=None, power_mw=Milliwatts(100_000))
    node.tick()
    return node


def test_a_card_without_a_counter_is_metered_by_its_power() -> None:
    node = without_counter()
    node.prolog(7, "0")
    node.show("GPU-0", power_mw=Milliwatts(300_000))
    node.go_on(2)
    node.tick()
    node.epilog(7)
    assert node.used_mj(A) == {7: 2 * 200_000 + 300_000}
    assert usage(node, 7).sources == {EnergySource.POWER}
    assert usage(node, 7).peak_mw == 300_000


def energy_shown(node: OneNode) -> set[str]:
    """The names of the page's series of GPUs' energy, and of jobs'."""
    page, _ = Exporter(node.snapshot, "full", node.clock.mono).render("Prometheus")
    names = (line.partition("{")[0] for line in page.decode().splitlines() if line[:1] != "#")
    return {name.removeprefix("wattkeeper_") for name in names if "gpu" in name and "energy_joules" in name}


def test_a_card_that_tells_nothing_of_its_energy_has_none_rather_than_0() -> None:
    node = OneNode(gpu(0))
    node.show("GPU-0", energy_mj=None, power_mw=None)
    node.start()
    node.prolog(7, "0")
    node.tick()
    assert energy_shown(node) == set()
    node.show("GPU-0", power_mw=Milliwatts(100_000))
    node.tick()
    of_gpu = {"gpu_idle_energy_joules_total", "gpu_unattributed_energy_joules_total"}
    assert energy_shown(node) == {*of_gpu, "job_gpu_energy_joules_total"}
    node.show("GPU-0", power_mw=None)  # what was counted stays counted
    node.tick()
    assert energy_shown(node) >= of_gpu


def test_a_power_that_no_gpu_can_draw_is_charged_to_nobody_and_shown_to_nobody() -> None:
    node = without_counter()
    node.prolog(7, "0")
    for power_mw in (100_000, 4_294_967_295, 100_000):
        node.show("GPU-0", power_mw=Milliwatts(power_mw))
        node.go_on(2)
        node.tick()
        page, _ = Exporter(node.snapshot, "full", node.clock.mono).render("Prometheus")
        assert (b"\nwattkeeper_gpu_power_watts{" in page) == (power_mw == 100_000)
    assert (node.used_mj(A), usage(node, 7).peak_mw) == ({7: 600_000}, 100_000)
    assert node.gaps() == {}


def test_a_hole_in_its_power_is_a_gap_that_no_job_pays_for_or_is_said_to_have_lasted() -> None:
    node = without_counter()
    node.prolog(7, "0")
    node.go_on(1)
    node.tick()
    node.go_on(3_600)
    node.tick()
    node.go_on(1)
    node.tick()
    assert (usage(node, 7).energy_mj, usage(node, 7).held_ns) == (200_000, 2_000_000_000)
    assert node.gaps() == {"outage": 1}


def test_integrated_power_goes_on_after_a_restart_from_where_it_was() -> None:
    node = without_counter()
    node.prolog(7, "0")
    node.go_on(2)
    node.tick()
    node.start()
    node.go_on(2)
    node.tick()
    assert node.used_mj(A) == {7: 400_000}
    assert node.gaps() == {}


def test_a_counter_that_fails_to_answer_once_is_not_replaced_by_power() -> None:
    node = OneNode(gpu(0))
    node.tick()
    node.prolog(7, "0")
    energy = node.gpus.gpus[A].reading.energy_mj
    node.show("GPU-0", energy_mj=None)
    node.go_on(1)
    node.tick()
    node.show("GPU-0", energy_mj=energy)
    node.go_on(1, GPU_0=500_000)
    node.tick()
    assert node.used_mj(A) == {7: 500_000}
    assert usage(node, 7).sources == {EnergySource.COUNTER}
    assert node.gaps() == {}


def test_nor_is_one_that_fails_to_at_the_first_look_of_a_boot() -> None:
    node = OneNode(gpu(0))
    node.tick()
    node.clock.boot = "boot-2"
    node.show("GPU-0", energy_mj=None)
    node.start()
    node.tick()
    node.show("GPU-0", energy_mj=90_000_000)
    node.go_on(5)
    node.tick()
    assert node.state.gpus[A].unattributed_mj == 90_000_000
    assert node.gaps() == {"restart": 1}


@pytest.mark.parametrize("restarts", [False, True], ids=["one agent", "killed in between"])
@pytest.mark.parametrize("beside", [False, True], ids=["on an idle GPU", "beside another job"])
def test_a_job_that_came_and_went_while_no_agent_was_there_is_paid_for_by_nobody(beside: bool, restarts: bool) -> None:
    node = OneNode(gpu(0), gres=shared(1))
    node.tick()
    if beside:
        node.prolog(7, "0")
    node.go_on(60, GPU_0=50_000_000)
    node.start()
    node.post(EventKind.PROLOG, 8, {"SLURM_JOB_GPUS": "0"}, node.ago(50))
    if restarts:
        node.start()
    node.post(EventKind.EPILOG, 8, {}, node.ago(10))
    if restarts:
        node.start()
    node.go_on(1)
    node.tick()
    mine = node.state.gpus[A]
    assert (node.used_mj(A), mine.idle_mj, mine.unattributed_mj) == ({}, 0, 50_000_000)
    node.go_on(1, GPU_0=1_000)
    node.tick()
    assert (node.used_mj(A), mine.idle_mj) == (({7: 1_000}, 0) if beside else ({}, 1_000))


def test_a_job_that_came_and_went_while_its_gpu_did_not_answer_is_paid_for_by_nobody() -> None:
    node = OneNode(gpu(0), gres=shared(1))
    node.tick()
    node.prolog(7, "0")
    node.gpus.gpus[A].hang()
    node.prolog(8, "0")
    node.go_on(10, GPU_0=5_000_000)
    node.epilog(8)
    node.gpus.gpus[A].mend()
    node.tick()
    assert (node.used_mj(A), node.state.gpus[A].unattributed_mj) == ({}, 5_000_000)
    assert node.gaps() == {"outage": 1}


def test_a_counter_that_reads_0_once_is_not_counted_anew_from_its_beginning() -> None:
    node = OneNode(gpu(0))
    node.show("GPU-0", energy_mj=1_800_000_000_000)
    node.start()
    node.tick()
    node.prolog(7, "0")
    node.show("GPU-0", energy_mj=0)
    node.go_on(5)
    node.tick()
    node.show("GPU-0", energy_mj=1_800_004_000_000)
    node.go_on(5)
    node.tick()
    assert node.used_mj(A) == {}
    assert 4_000_000 <= node.state.gpus[A].unattributed_mj <= 3 * 4_200_000
    assert node.gaps() == {"restart": 1, "jump": 1}


def test_gaps_are_counted_by_their_cause_and_begin_at_0() -> None:
    node = OneNode(gpu(0), gpu(1))
    assert {key: n for key, n in node.tally.view().energy_gaps.items() if key[0] == 1} == {
        (1, "outage"): 0,
        (1, "restart"): 0,
        (1, "jump"): 0,
    }
    node.tick()
    node.show("GPU-0", energy_mj=50)
    node.go_on(1)
    node.tick()
    node.go_on(1, GPU_0=500_000_000)
    node.tick()
    node.go_on(1)
    left = Moment(node.clock.wall(), node.clock.mono() - 0.5)
    node.post(EventKind.PROLOG, 7, {"SLURM_JOB_GPUS": "0"}, left)
    node.go_on(1)
    node.tick()
    assert node.gaps(0) == {"restart": 1, "jump": 1, "outage": 1}
    assert node.gaps(1) == {}


def test_how_long_a_job_held_its_gpu_and_how_long_the_cap_held_it_back() -> None:
    node = OneNode(gpu(0))
    node.show("GPU-0", capped_ns=5_000_000_000)
    node.tick()
    node.prolog(7, "0")
    node.show("GPU-0", capped_ns=5_500_000_000, power_mw=Milliwatts(650_000))
    node.go_on(2, GPU_0=1)
    node.tick()
    node.show("GPU-0", capped_ns=None, power_mw=Milliwatts(90_000))
    node.go_on(2, GPU_0=1)
    node.epilog(7)
    used = usage(node, 7)
    assert (used.held_ns, used.capped_ns, used.peak_mw) == (5_000_000_000, 500_000_000, 650_000)


def notes(node: OneNode) -> list[JobNote]:
    return [note for change in node.changes for note in change.notes]


def test_the_ledger_hears_of_a_job_when_it_begins_when_it_is_decided_on_and_when_it_ends() -> None:
    node = OneNode(gpu(0))
    node.tick()
    node.prolog(7, "0", SLURM_JOB_ACCOUNT="ml", SLURM_JOB_COMMENT="power=300W")
    before = node.clock.wall()
    (begun,) = notes(node)
    assert (begun.facts.account, begun.started_at, begun.ended_at) == ("ml", before, None)
    node.go_on(1)
    node.tick()
    node.tick()
    _, decided = notes(node)
    assert (decided.asked, decided.outcome) == ("300W", "denied")
    assert (decided.gpus[A].minor, decided.gpus[A].cap_mw) == (0, 700_000)
    node.go_on(1)
    node.epilog(7)
    ended = notes(node)[-1]
    assert (ended.ended_at, ended.asked, ended.gpus[A].cap_mw) == (node.clock.wall(), "300W", 700_000)
    assert node.changes[-1].over == (ended.facts.key,)


def test_a_job_whose_epilog_never_came_ends_when_another_takes_its_gpu() -> None:
    node = OneNode(gpu(0))
    node.tick()
    node.prolog(7, "0")
    node.go_on(5)
    node.prolog(8, "0")
    last = {note.facts.key.job_id: note for note in node.changes[-1].notes}
    assert (last[7].ended_at, last[8].ended_at) == (node.clock.wall(), None)


def test_a_restarted_agent_goes_on_with_what_a_job_has_used() -> None:
    node = OneNode(gpu(0))
    node.tick()
    node.prolog(7, "0", SLURM_JOB_ACCOUNT="ml", SLURM_JOB_PARTITION="gpu")
    node.go_on(1, GPU_0=1_000)
    node.tick()
    before = usage(node, 7)
    node.start()
    assert usage(node, 7) == before
    node.go_on(1, GPU_0=500)
    node.epilog(7)
    assert usage(node, 7).energy_mj == 1_500
    assert node.snapshot().accounts["ml", "gpu"].energy_mj == 1_500


@pytest.mark.parametrize("set_back_s", [0.0, 3_600.0])
def test_a_job_that_was_given_another_gpu_began_with_its_first_after_a_restart_too(set_back_s: float) -> None:
    node = OneNode(gpu(0), gpu(1))
    node.tick()
    node.prolog(7, "1")
    begun_at = node.clock.wall()
    node.go_on(1_000)
    node.clock.off_s = -set_back_s
    node.prolog(7, "0,1")
    node.start()
    assert [job.started_at for job in node.snapshot().jobs] == [begun_at]
    node.go_on(10)
    node.epilog(7)
    assert [record.note.started_at for record in node.store.unrecorded()] == [begun_at]


@pytest.mark.parametrize("account", [None, "ml"])
def test_an_account_is_there_from_its_first_job_on(account: str | None) -> None:
    node = OneNode(gpu(0))
    node.tick()
    assert node.snapshot().accounts == {}
    node.prolog(7, "0", **({"SLURM_JOB_ACCOUNT": account} if account else {}))
    assert {name: view.energy_mj for name, view in node.snapshot().accounts.items()} == {(account or "", ""): 0}


def test_what_a_job_used_of_a_gpu_that_it_had_before_is_not_forgotten() -> None:
    node = OneNode(gpu(0), gpu(1))
    node.tick()
    node.prolog(7, "0")
    node.go_on(1, GPU_0=1_000)
    node.prolog(7, "1")
    for _ in range(2):
        assert node.used_mj(A) == {7: 1_000}
        assert set(node.snapshot().jobs[0].all_gpus) == {A, GpuUuid("GPU-1")}
        node.start()


def test_what_another_prolog_of_the_job_closes_is_its_accounts_as_in_the_ledger() -> None:
    node = OneNode(gpu(0))
    node.tick()
    node.prolog(7, "0", SLURM_JOB_ACCOUNT="a")
    node.go_on(5, GPU_0=300)
    node.tick()
    node.go_on(5, GPU_0=1_000)
    node.prolog(7, "0", SLURM_JOB_ACCOUNT="b")
    shown = {account: view.energy_mj for (account, _), view in node.snapshot().accounts.items()}
    assert shown == {"a": 300, "b": 1_000}
    node.start()
    assert {account: view.energy_mj for (account, _), view in node.snapshot().accounts.items()} == shown
