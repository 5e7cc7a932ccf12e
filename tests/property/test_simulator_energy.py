"""Energy and capped time of a simulated GPU against a model in exact arithmetic, over any history."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from build_simulator import refresh_in_tree
from wattkeeper.simulator import Simulation
from wattkeeper.units import Milliwatts

IDLE_MW, PEAK_MW = 70_000, 700_000


@dataclass(frozen=True)
class SetLimit:
    limit_mw: int


@dataclass(frozen=True)
class Load:
    basis_points: int


@dataclass(frozen=True)
class OutOfBand:
    limit_mw: int | None


@dataclass(frozen=True)
class Advance:
    nanoseconds: int


class Reload:
    pass


steps = st.lists(
    st.one_of(
        st.integers(200_000, 700_000).map(SetLimit),
        st.integers(0, 10_000).map(Load),
        (st.none() | st.integers(1, 900_000)).map(OutOfBand),
        st.integers(0, 10**14).map(Advance),
        st.builds(Reload),
    ),
    max_size=30,
)


@given(steps)
@settings(deadline=None)
def test_energy_is_the_sum_of_power_times_time(history: list[object]) -> None:
    refresh_in_tree()
    limit, oob, load, picojoules, capped_ns = 700_000, None, 0, 0, 0
    with (
        tempfile.TemporaryDirectory() as folder,
        Simulation.create(Path(folder), gpus=2) as simulation,
    ):
        simulation.set_clock("manual")
        simulation.driver_reload()
        before = 0
        for step in history:
            match step:
                case SetLimit(limit_mw):
                    simulation.set_limit(1, Milliwatts(limit_mw))
                    limit = limit_mw
                case Load(basis_points):
                    simulation.load(1, basis_points / 10_000)
                    load = basis_points
                case OutOfBand(None):
                    simulation.clear_fault(1, "oob")
                    oob = None
                case OutOfBand(limit_mw):
                    simulation.fault(1, "oob", limit_mw)
                    oob = limit_mw
                case Advance(nanoseconds):
                    simulation.advance(nanoseconds / 1_000_000_000)
                    nanoseconds = round(nanoseconds / 1_000_000_000 * 1_000_000_000)
                    natural = IDLE_MW + (PEAK_MW - IDLE_MW) * load // 10_000
                    enforced = limit if oob is None else min(limit, oob)
                    picojoules += min(natural, max(IDLE_MW, enforced)) * nanoseconds
                    capped_ns += nanoseconds if natural > enforced else 0
                case _:
                    simulation.driver_reload()
                    limit, picojoules, capped_ns, before = 700_000, 0, 0, 0
            gpu = simulation.gpu(1)
            assert gpu.energy_mj == picojoules // 10**9
            assert gpu.energy_mj >= before
            assert gpu.capped_ns == capped_ns
            assert gpu.enforced_mw == (limit if oob is None else min(limit, oob))
            assert gpu.requested_mw == limit
            before = gpu.energy_mj
        other = simulation.gpu(0)
        assert (other.requested_mw, other.oob_limit_mw, other.load) == (700_000, None, 0.0)
