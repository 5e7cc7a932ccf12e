"""How far simulated GPUs can be driven: what is too much is refused, and the state can be read afterwards."""

import errno
import time
from pathlib import Path

import pytest

from wattkeeper.simulator import Simulation, SimulatorError
from wattkeeper.simulator.structures import CAction, CLoad, CSegment, Kind
from wattkeeper.units import Millijoules, Milliwatts

YEAR_S = 365 * 86_400
LIMIT_MW = Milliwatts(300_000)


@pytest.fixture
def simulation(tmp_path: Path) -> Simulation:
    return Simulation.create(tmp_path, model="H100", gpus=2, clock="manual")


def test_what_repeats_every_millisecond_does_not_hold_up_who_looks_a_year_later(simulation: Simulation) -> None:
    simulation.load(0, "training")
    simulation.set_limit(0, LIMIT_MW, every=0.001)
    simulation.jump_counter(1, Millijoules(7), every=3600)
    start = time.monotonic()
    simulation.advance(YEAR_S)
    assert time.monotonic() - start < 5
    assert simulation.gpu(0).requested_mw == LIMIT_MW
    assert simulation.gpu(0).energy_mj > 0
    assert sorted(plan.every_s or 0 for plan in simulation.plans()) == [0.001, 3600]
    assert all(YEAR_S < (plan.at_s or 0) <= YEAR_S + (plan.every_s or 0) for plan in simulation.plans())


def test_time_ends_after_73_years(simulation: Simulation) -> None:
    simulation.advance(36 * YEAR_S)
    simulation.advance(36 * YEAR_S)
    with pytest.raises(SimulatorError):
        simulation.advance(2 * YEAR_S)
    assert simulation.show().now_ns == 72 * YEAR_S * 10**9


def act(simulation: Simulation, action: CAction) -> int:
    """What the library says to an action, however little sense that makes."""
    return int(simulation._library.wk_sim_act(simulation._handle, action))


def test_a_counter_jumps_only_so_far(simulation: Simulation) -> None:
    for jump_mj, ends_mj in ((9 * 10**17, 5 * 10**17), (-9 * 10**17, 0)):
        for _ in range(5):
            assert act(simulation, CAction(gpu=0, kind=Kind.JUMP_COUNTER, value=jump_mj)) == 0
        assert simulation.gpu(0).counter_mj == ends_mj
    assert act(simulation, CAction(gpu=0, kind=Kind.JUMP_COUNTER, value=2 * 10**18)) == errno.ERANGE


@pytest.mark.parametrize("time", ["at_ns", "every_ns", "delay_ns"])
def test_nothing_is_planned_for_a_time_that_never_comes(simulation: Simulation, time: str) -> None:
    action = CAction(gpu=0, kind=Kind.RAISE_XID, value=79)
    setattr(action, time, 2**62)
    assert act(simulation, action) == errno.ERANGE
    assert act(simulation, CAction(every_ns=2**61 - 1, gpu=0, kind=Kind.RAISE_XID, value=79)) == 0
    simulation.advance(YEAR_S)
    assert simulation.gpu(0).xid_count == 1


def test_a_segment_that_draws_no_more_than_idle_is_held_by_no_limit(simulation: Simulation) -> None:
    simulation.fault(0, "oob", 1)
    segments = (CSegment * 1)(CSegment(1_000, 0, 0))
    assert simulation._library.wk_sim_set_load(simulation._handle, 0, CLoad(b"own", count=1), segments) == 0
    simulation.advance(1)
    gpu = simulation.gpu(0)
    assert gpu.power_mw == gpu.idle_mw
    assert gpu.speed == 1
    assert gpu.capped_ns == 0


def test_a_boot_id_that_no_kernel_has_is_refused(simulation: Simulation) -> None:
    with pytest.raises(SimulatorError):
        simulation.forge_boot_id("\x01")
    assert len(simulation.show().gpus) == 2
