"""Every fault of simulated GPUs as an NVML client sees it: through the real pynvml, in a process of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.simulated import DRIVER_NOT_LOADED, GPU_IS_LOST, NO_PERMISSION, UNINITIALIZED, UNKNOWN, client

from wattkeeper.simulator import FAULTS, GPU_FAULTS, LIBRARY_FAULTS, FaultKind, Simulation
from wattkeeper.simulator.structures import Fault
from wattkeeper.units import Milliwatts

TIMEOUT, IRQ, RESET_REQUIRED, LIB_RM_VERSION_MISMATCH, IN_USE = 10, 11, 16, 18, 19
CAP = Milliwatts(300_000)
TRY = """
def limit(i):
    return tried(lambda: n.nvmlDeviceGetPowerManagementLimit(gpu(i)))
answer([[limit(i), tried(lambda: n.nvmlDeviceSetPowerManagementLimit(gpu(i), 300_000)), limit(i)] for i in range(2)])
"""


@pytest.fixture
def gpus(folder: Path) -> Iterator[Simulation]:
    with Simulation.create(folder, gpus=2, sensors="ideal", clock="manual") as simulation:
        yield simulation


def test_the_names_are_those_of_the_library() -> None:
    assert [fault.name.lower().replace("_", "-") for fault in Fault] == list(FAULTS)
    assert {*GPU_FAULTS, *LIBRARY_FAULTS} == {*FAULTS}


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("lost", GPU_IS_LOST),
        ("reset-required", RESET_REQUIRED),
        ("unknown", UNKNOWN),
        ("timeout", TIMEOUT),
        ("irq", IRQ),
    ],
)
def test_one_gpu_answers_an_error_to_every_call(gpus: Simulation, kind: FaultKind, answer: int) -> None:
    gpus.fault(0, kind)
    assert gpus.gpu(0).faults == (kind,)
    assert client(gpus, TRY) == [[answer] * 3, [700_000, None, 300_000]]
    gpus.clear_fault(0, kind)
    assert client(gpus, TRY)[0] == [700_000, None, 300_000]


def test_a_reset_brings_a_lost_gpu_back(gpus: Simulation) -> None:
    gpus.set_limit("all", CAP)
    gpus.load("all", 0.5)
    gpus.advance(10)
    for kind in ("lost", "reset-required"):
        gpus.fault(0, kind)
        gpus.reset_gpu(0)
    first, second = gpus.show().gpus
    assert (first.faults, first.requested_mw, first.energy_mj) == ((), 700_000, 0)
    assert (second.requested_mw, first.load_name) == (300_000, "steady")
    assert second.energy_mj > 0


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("no-permission", [700_000, NO_PERMISSION, 700_000]),
        ("in-use", [700_000, IN_USE, 700_000]),
        ("ignored", [700_000, None, 700_000]),
    ],
)
def test_one_gpu_takes_no_limit(gpus: Simulation, kind: FaultKind, seen: list[int | None]) -> None:
    gpus.fault(0, kind)
    assert gpus.gpu(0).faults == (kind,)
    assert client(gpus, TRY) == [seen, [700_000, None, 300_000]]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("no-driver", DRIVER_NOT_LOADED),
        ("wrong-driver", LIB_RM_VERSION_MISMATCH),
        ("unknown", UNKNOWN),
        ("timeout", TIMEOUT),
        ("irq", IRQ),
    ],
)
def test_the_whole_library_fails(gpus: Simulation, kind: FaultKind, answer: int) -> None:
    gpus.fault("library", kind)
    assert gpus.show().faults == (kind,)
    assert client(gpus, "answer([tried(n.nvmlInit), tried(n.nvmlDeviceGetCount)])", init=False) == [
        answer,
        UNINITIALIZED,
    ]
    gpus.clear_fault("library", kind)
    assert client(gpus, "answer(n.nvmlDeviceGetCount())") == 2


def test_the_library_fails_while_clients_hold_it(gpus: Simulation) -> None:
    gpus.fault("library", "no-driver", on="set-limit")
    code = """
h = gpu(0)
n.nvmlDeviceSetPowerManagementLimit(h, 300_000)
answer([tried(n.nvmlDeviceGetPowerUsage, h), tried(n.nvmlDeviceGetCount)])
"""
    assert client(gpus, code) == [DRIVER_NOT_LOADED] * 2
    gpus.clear_fault("library")
    assert gpus.show().faults == ()


@pytest.mark.parametrize("target", [0, "library"])
def test_slow_and_hanging_calls_take_their_time(gpus: Simulation, target: int) -> None:
    code = "h = gpu(0); start = time.monotonic(); n.nvmlDeviceGetPowerUsage(h); answer(time.monotonic() - start)"
    gpus.fault(target, "slow", 0.1)
    assert 0.1 <= client(gpus, code) < 1
    gpus.clear_fault(target)
    gpus.fault(target, "hang", 0.2)
    assert 0.2 <= client(gpus, code) < 2
    gpus.clear_fault(target)
    fastest = """
def took():
    start = time.monotonic()
    n.nvmlDeviceGetPowerUsage(gpu(0))
    return time.monotonic() - start
answer(min(took() for _ in range(5)))
"""
    assert client(gpus, fastest) < 0.1


def test_the_counter_sticks_jumps_and_goes_back(gpus: Simulation) -> None:
    reading = "answer([n.nvmlDeviceGetTotalEnergyConsumption(gpu(i)) for i in range(2)])"
    gpus.advance(10)
    gpus.fault(0, "counter-stuck")
    gpus.advance(10)
    assert client(gpus, reading) == [700_000, 1_400_000]
    assert gpus.gpu(0).energy_mj == 1_400_000
    gpus.clear_fault(0)
    assert client(gpus, reading) == [1_400_000, 1_400_000]
    gpus.jump_counter(0, 5_000_000)
    gpus.jump_counter(1, -400_000)
    assert client(gpus, reading) == [6_400_000, 1_000_000]
    gpus.jump_counter(1, -10_000_000)
    assert client(gpus, reading) == [6_400_000, 0]
    assert [gpu.energy_mj for gpu in gpus.show().gpus] == [1_400_000] * 2


def test_a_counter_sticks_at_nothing_too(gpus: Simulation) -> None:
    gpus.driver_reload()
    gpus.fault(0, "counter-stuck")
    gpus.advance(10)
    assert gpus.gpu(0).counter_mj == 0


def test_an_xid_reaches_who_waits_for_it(gpus: Simulation) -> None:
    gpus.raise_xid(0, 48)  # nobody waits yet
    gpus.raise_xid(0, 79, on="set-limit")
    code = """
events = n.nvmlEventSetCreate()
n.nvmlDeviceRegisterEvents(gpu(0), n.nvmlEventTypeXidCriticalError, events)
n.nvmlDeviceSetPowerManagementLimit(gpu(0), 300_000)
found = n.nvmlEventSetWait_v2(events, 5000)
answer([found.eventType == n.nvmlEventTypeXidCriticalError, found.eventData])
"""
    assert client(gpus, code) == [True, 79]
    assert gpus.gpu(0).xid_count == 2


def test_without_persistence_the_driver_forgets_with_its_last_client(gpus: Simulation) -> None:
    gpus.set_persistence(0, False)
    gpus.advance(10)
    client(gpus, "answer([n.nvmlDeviceSetPowerManagementLimit(gpu(i), 300_000) for i in range(2)])")
    reading = """
answer([[n.nvmlDeviceGetPowerManagementLimit(gpu(i)), n.nvmlDeviceGetPersistenceMode(gpu(i))] for i in range(2)])
"""
    assert client(gpus, reading) == [[700_000, 0], [300_000, 1]]
    assert [gpu.persistence for gpu in gpus.show().gpus] == [False, True]


def test_an_out_of_band_limit_outlives_a_reboot_and_other_faults_do_not(gpus: Simulation) -> None:
    gpus.fault("all", "oob", 400_000)
    gpus.fault("all", "lost")
    gpus.fault("library", "no-driver")
    gpus.reboot()
    assert [gpu.faults for gpu in gpus.show().gpus] == [("oob",)] * 2
    assert gpus.show().faults == ()
    assert client(gpus, "answer(n.nvmlDeviceGetEnforcedPowerLimit(gpu(1)))") == 400_000


def test_an_older_driver_lacks_what_it_lacked(gpus: Simulation) -> None:
    with Simulation.create(gpus.state / "older", driver="525", clock="manual") as older:
        assert older.show().driver_version.startswith("525.")
        assert "/driver-525" in older.env()["LD_LIBRARY_PATH"]
        assert client(older, "answer(n.nvmlSystemGetDriverVersion())").startswith("525.")
