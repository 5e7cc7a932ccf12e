"""Energy and capped time of a simulated GPU against a model in exact arithmetic, over any history.

And what must make no difference to them: who looks, when, how often, and in how many steps time passes.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from build_simulator import refresh_in_tree
from wattkeeper.simulator import Simulation, profiles
from wattkeeper.units import Milliwatts

IDLE_MW, PEAK_MW = 70_000, 700_000
STEP_NS, SPIKE_NS = 10_000_000, 50_000_000


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


@dataclass
class Oracle:
    """One GPU under a steady load, by the documented rules: the limit that acts moves in steps of 10 ms, five down
    and 52 up; a load's first 50 ms may draw 1.6 times that."""

    now_ns: int = 0
    limit_mw: int = 700_000
    oob_mw: int | None = None
    from_mw: int = 700_000
    ramp_ns: int = 0
    load: int = 0
    load_ns: int = -SPIKE_NS
    picojoules: int = 0
    base_mj: int = 0
    capped_ns: int = 0
    edges: list[int] = field(default_factory=list)

    def enforced(self) -> int:
        return self.limit_mw if self.oob_mw is None else min(self.limit_mw, self.oob_mw)

    def acting(self) -> int:
        way = self.enforced() - self.from_mw
        steps = 5 if way < 0 else 52
        done = min(steps, (self.now_ns - self.ramp_ns) // STEP_NS + 1)
        return self.from_mw + (way * done // steps if way > 0 else -(-way * done // steps))

    def advance(self, nanoseconds: int) -> None:
        end_ns = self.now_ns + nanoseconds
        edges = [self.ramp_ns + STEP_NS * step for step in range(1, 53)]
        for edge in sorted({*edges, self.load_ns + SPIKE_NS, end_ns}):
            if self.now_ns < edge <= end_ns:
                self._pass(edge - self.now_ns)

    def _pass(self, nanoseconds: int) -> None:
        acting = self.acting()
        if self.now_ns < self.load_ns + SPIKE_NS:
            acting = acting * 160 // 100
        natural = IDLE_MW + (PEAK_MW - IDLE_MW) * self.load // 10_000
        capped = self.load > 0 and natural > acting
        power = min(natural, max(IDLE_MW, acting)) if capped else natural
        self.picojoules += power * nanoseconds
        self.capped_ns += nanoseconds if capped else 0
        self.now_ns += nanoseconds

    def change(self, limit_mw: int, oob_mw: int | None) -> None:
        acting, before = self.acting(), self.enforced()
        self.limit_mw, self.oob_mw = limit_mw, oob_mw
        if self.enforced() != before:
            self.from_mw, self.ramp_ns = acting, self.now_ns

    def do(self, step: object) -> None:
        match step:
            case SetLimit(limit_mw):
                self.change(limit_mw, self.oob_mw)
            case Load(basis_points):
                self.load, self.load_ns = basis_points, self.now_ns
            case OutOfBand(limit_mw):
                self.change(self.limit_mw, limit_mw)
            case Advance(nanoseconds):
                self.advance(nanoseconds)
            case _:
                self.change(700_000, self.oob_mw)
                self.base_mj, self.capped_ns = self.picojoules // 10**9, 0


def do(simulation: Simulation, step: object) -> None:
    """The same on the simulated GPU 1."""
    match step:
        case SetLimit(limit_mw):
            simulation.set_limit(1, Milliwatts(limit_mw))
        case Load(basis_points):
            simulation.load(1, basis_points / 10_000)
        case OutOfBand(None):
            simulation.clear_fault(1, "oob")
        case OutOfBand(limit_mw):
            simulation.fault(1, "oob", limit_mw)
        case Advance(nanoseconds):
            simulation.advance(nanoseconds / 1_000_000_000)
        case _:
            simulation.driver_reload()


times = st.one_of(st.integers(0, 2 * 10**8), st.integers(0, 10**11), st.integers(0, 10**14))
advances = times.map(lambda ns: Advance(round(ns / 1_000_000_000 * 1_000_000_000)))
steps = st.lists(
    st.one_of(
        st.integers(200_000, 700_000).map(SetLimit),
        st.integers(0, 10_000).map(Load),
        (st.none() | st.integers(1, 900_000)).map(OutOfBand),
        advances,
        st.builds(Reload),
    ),
    max_size=30,
)


@given(steps)
def test_energy_is_the_sum_of_power_times_time(history: list[object]) -> None:
    refresh_in_tree()
    oracle = Oracle()
    with (
        tempfile.TemporaryDirectory() as folder,
        Simulation.create(Path(folder), gpus=2, sensors="ideal", clock="manual") as simulation,
    ):
        for step in history:
            do(simulation, step)
            oracle.do(step)
            gpu = simulation.gpu(1)
            assert gpu.acting_mw == oracle.acting()
            assert gpu.enforced_mw == oracle.enforced()
            assert gpu.requested_mw == oracle.limit_mw
            assert gpu.energy_mj == oracle.picojoules // 10**9 - oracle.base_mj == gpu.counter_mj
            assert gpu.capped_ns == oracle.capped_ns
        other = simulation.gpu(0)
        assert (other.requested_mw, other.oob_limit_mw, other.load) == (700_000, None, 0.0)


@given(
    which=st.integers(0, 63),
    level=st.integers(100, 10_000),
    limits=st.lists(st.tuples(st.integers(200_000, 700_000), st.integers(0, 10**10)), min_size=1, max_size=4),
    looks=st.lists(st.integers(1, 3 * 10**9), max_size=12),
    writes=st.booleans(),
)
def test_looking_in_between_changes_nothing(
    which: int, level: int, limits: list[tuple[int, int]], looks: list[int], writes: bool
) -> None:
    """One GPU is left alone for each stretch of time, the other is looked at, or written to, on the way."""
    refresh_in_tree()
    profile = profiles()[which % len(profiles())]
    seen = []
    for parts in ([], looks):
        with (
            tempfile.TemporaryDirectory() as folder,
            Simulation.create(Path(folder), gpus=1, seed="same", clock="manual") as simulation,
        ):
            work_s = None if profile == "idle" else 20
            simulation.load(0, profile, level=level / 10_000, work_s=work_s)
            for limit_mw, wait_ns in limits:
                simulation.set_limit(0, Milliwatts(limit_mw))
                left_ns = wait_ns
                for part in parts:
                    part_ns = min(part, left_ns)
                    left_ns -= part_ns
                    simulation.advance(part_ns / 1e9)
                    simulation.gpu(0)
                    if writes:
                        simulation.set_persistence(0, True)  # settles its sums, and changes nothing
                simulation.advance(left_ns / 1e9)
            gpu = simulation.gpu(0)
            seen.append((gpu.energy_mj, gpu.counter_mj, gpu.capped_ns, gpu.work_done_s, gpu.load_ends_ns))
            assert abs(gpu.temperature_c - 29) < 60
    assert seen[0] == seen[1]
