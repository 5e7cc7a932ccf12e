"""What is planned for simulated GPUs: at a time, again and again, or when an NVML client does something."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.simulated import client

from wattkeeper.simulator import Action, Simulation, SimulatorError
from wattkeeper.simulator.structures import MAX_ACTIONS
from wattkeeper.units import Milliwatts

NOBODY = 65534
CAP = Milliwatts(300_000)


@pytest.fixture
def gpus(folder: Path) -> Iterator[Simulation]:
    with Simulation.create(folder, gpus=2, sensors="ideal", clock="manual") as simulation:
        yield simulation


def limits(simulation: Simulation) -> list[int]:
    return [int(gpu.requested_mw) // 1000 for gpu in simulation.show().gpus]


def test_it_happens_at_its_time_and_not_before(gpus: Simulation) -> None:
    gpus.advance(5)
    gpus.set_limit(0, CAP, after=10)
    gpus.set_limit(1, Milliwatts(400_000), at=16)
    assert [(plan.at_s, plan.action.gpu) for plan in gpus.plans()] == [(15, 0), (16, 1)]
    gpus.advance(9.999)
    assert limits(gpus) == [700, 700]
    gpus.advance(0.001)
    assert limits(gpus) == [300, 700]
    gpus.advance(100)
    assert (limits(gpus), gpus.plans()) == ([300, 400], ())


def test_what_was_due_counts_as_of_its_own_time(gpus: Simulation) -> None:
    """One GPU's change is planned, the other's made on the spot: in the end nobody can tell them apart."""
    gpus.load("all", "training", work_s=60)
    gpus.set_limit(0, CAP, after=10)
    gpus.load(0, 0, after=50)
    gpus.advance(10)
    gpus.set_limit(1, CAP)
    gpus.advance(40)
    gpus.load(1, 0)
    gpus.advance(100)
    planned, made = gpus.show().gpus
    assert (planned.energy_mj, planned.capped_ns, planned.work_done_s) == (
        made.energy_mj,
        made.capped_ns,
        made.work_done_s,
    )


def test_it_happens_again_and_again_and_is_undone(gpus: Simulation) -> None:
    gpus.fault(1, "lost", after=10, lasting=3, every=10)
    seen = []
    for _ in range(30):
        gpus.advance(1)
        seen.append("lost" in gpus.gpu(1).faults)
    assert [at for at, lost in enumerate(seen, start=1) if lost] == [10, 11, 12, 20, 21, 22, 30]
    gpus.forget_plans()
    gpus.advance(100)
    assert gpus.gpu(1).faults == ("lost",)


def test_what_lasts_is_undone_in_its_own_way(gpus: Simulation) -> None:
    gpus.load("all", "steady", lasting=10)
    gpus.set_persistence(0, False, lasting=5)
    gpus.set_profile("driver", after=1, lasting=5)
    gpus.fault("library", "slow", 0.001, lasting=7)
    assert gpus.show().faults == ("slow",)
    gpus.advance(4)
    assert (gpus.gpu(0).persistence, gpus.show().profile) == (False, "driver")
    gpus.advance(4)
    assert (gpus.gpu(0).persistence, gpus.show().profile, gpus.show().faults) == (True, "none", ())
    assert gpus.gpu(0).load_name == "steady"
    gpus.advance(4)
    assert gpus.gpu(0).load_name is None


def test_it_waits_for_a_client_to_set_the_limit(gpus: Simulation) -> None:
    gpus.fault(0, "ignored", on="set-limit", nth=2)
    code = (
        "answer([n.nvmlDeviceSetPowerManagementLimit(gpu(0), w * 1000) or n.nvmlDeviceGetPowerManagementLimit(gpu(0)) "
    )
    assert client(gpus, code + "for w in (300, 400, 500)])") == [300_000, 400_000, 400_000]
    assert gpus.plans() == ()
    gpus.clear_fault(0)
    gpus.driver_reload(on="set-limit", after=5)
    client(gpus, "answer(n.nvmlDeviceSetPowerManagementLimit(gpu(1), 300_000))")
    gpus.advance(4)
    assert limits(gpus) == [400, 300]
    gpus.advance(2)
    assert limits(gpus) == [700, 700]


def test_two_that_wait_for_one_event_count_it_once_each(gpus: Simulation) -> None:
    gpus.fault(0, "slow", 0.001, on="set-limit", nth=2)
    gpus.fault(0, "ignored", on="set-limit", nth=1)
    setting = "answer(n.nvmlDeviceSetPowerManagementLimit(gpu(0), 300_000))"
    client(gpus, setting)
    assert gpus.gpu(0).faults == ("ignored",)
    client(gpus, setting)
    assert gpus.gpu(0).faults == ("slow", "ignored")


def test_it_waits_for_a_client_to_open_the_library(gpus: Simulation) -> None:
    gpus.set_limit("all", CAP, on="open", nth=2)
    reading = "answer(n.nvmlDeviceGetPowerManagementLimit(gpu(0)))"
    assert [client(gpus, reading), client(gpus, reading)] == [700_000, 300_000]


def test_who_cannot_write_sees_what_was_due(folder: Path) -> None:
    """A reader does what is due in its own copy; the file stays as it was until a writer comes."""
    root = os.geteuid() == 0
    with Simulation.create(folder, gpus=2, sensors="ideal") as gpus:
        gpus.load("all", 1.0)
        soon = gpus.show().now_ns / 1e9 + 0.2
        gpus.set_limit(0, CAP, at=soon)
        gpus.set_limit(1, CAP, at=soon, every=0.01)
        threading.Event().wait(0.5)
        before = (folder / "state").read_bytes()
        if not root:
            (folder / "state").chmod(0o444)
        code = """
answer([[n.nvmlDeviceGetPowerManagementLimit(gpu(i)), n.nvmlDeviceGetPowerUsage(gpu(i)),
         n.nvmlDeviceGetTotalEnergyConsumption(gpu(i))] for i in range(2)])"""
        first, second = client(gpus, code, user=NOBODY if root else None)
        assert first[:2] == second[:2] == [300_000, 300_000]
        assert (folder / "state").read_bytes() == before
        if not root:
            (folder / "state").chmod(0o644)
        with Simulation.open(folder) as writer:
            writer.set_clock("manual")
            later = writer.show().gpus
        assert limits(gpus) == [300, 300]
        assert later[0].energy_mj >= first[2]
        assert later[1].energy_mj >= second[2]
        assert later[0].energy_mj == later[1].energy_mj


def test_plans_go_with_the_boot(gpus: Simulation) -> None:
    gpus.set_limit(0, CAP, after=10)
    gpus.forge_boot_id("00000000-0000-0000-0000-000000000000")
    assert gpus.plans() == ()


def test_only_so_many_plans_fit(gpus: Simulation) -> None:
    for at in range(MAX_ACTIONS - 1):
        gpus.set_limit(0, CAP, after=10 + at)
    with pytest.raises(SimulatorError, match=f"only {MAX_ACTIONS} things can be planned"):
        gpus.fault(0, "lost", after=5, lasting=5)
    gpus.fault(0, "lost", after=5)
    with pytest.raises(SimulatorError, match="wattkeeper sim reset"):
        gpus.fault(0, "lost", after=5)
    gpus.set_limit(1, CAP)  # what happens at once needs no place
    assert len(gpus.plans()) == MAX_ACTIONS


def test_plans_read_as_sentences(gpus: Simulation) -> None:
    gpus.load(0, "bert", level=0.5, work_s=60, after=1)
    gpus.fault(1, "hang", 5, at=2, every=10)
    gpus.fault("all", "oob", 250_000, on="set-limit", nth=3, after=2)
    gpus.jump_counter(0, -5_000_000, at=3)
    gpus.raise_xid(0, 79, at=4)
    gpus.reboot(at=5)
    assert [str(plan) for plan in gpus.plans()] == [
        "at 1 s: GPU 0: load bert at 50%, 60 s of work",
        "at 2 s: GPU 1: fault hang 5 s; again every 10 s",
        "at 3 s: GPU 0: counter jumps by -5000 J",
        "at 4 s: GPU 0: XID 79",
        "at 5 s: all GPUs: reboot",
        "on set-limit number 3, 2 s later: all GPUs: fault oob 250 W",
    ]
    assert gpus.plans()[0].action == Action.load(0, "bert", 0.5, 60)


def test_what_cannot_be_planned_is_refused(gpus: Simulation) -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: gpus.fault(7, "lost", after=1), "no GPU 7"),
        (lambda: gpus.set_limit("all", Milliwatts(1), after=1), "GPU 1 .* takes no limit of"),
        (lambda: gpus.set_limit(0, CAP, at=1, after=1), "not both"),
        (lambda: gpus.set_limit(0, CAP, at=1, on="open"), "not both"),
        (lambda: gpus.set_limit(0, CAP, nth=2), "nth counts events"),
        (lambda: gpus.set_limit(0, CAP, on="open", nth=0), "0th time"),
        (lambda: gpus.set_limit(0, CAP, after=-1), "no time"),
        (lambda: gpus.set_limit(0, CAP, every=0.0001), "no time"),
        (lambda: gpus.set_limit(0, CAP, lasting=5), "has no end"),
        (lambda: gpus.fault(0, "lost", every=5, lasting=5), "cannot last"),
        (lambda: gpus.fault(0, "broken"), "allowed: hang, slow"),  # type: ignore[arg-type]
        (lambda: gpus.fault(0, "lost", 5), "cannot have the value"),
        (lambda: gpus.fault(0, "slow"), "1 us to 3600 s"),
        (lambda: gpus.fault(0, "hang", 86_401), "until mended"),
        (lambda: gpus.fault(0, "oob", 0), "100 kW"),
        (lambda: gpus.set_limit("library", CAP), "only faults are of the library"),
        (lambda: gpus.set_limit(0, CAP, on="never"), "set-limit, open"),  # type: ignore[arg-type]
        (lambda: gpus.raise_xid(0, 0), "1 to 999"),
    ]
    for wrong, said in refused:
        with pytest.raises(SimulatorError, match=said):
            wrong()
    assert gpus.plans() == ()
