"""The same experiments on simulated GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from wattkeeper.simulator import Simulation
from wattkeeper.units import Milliwatts

MODEL = "V100-PCIe"
WARM_S, RUN_S = 2.0, 100.0


@contextmanager
def board() -> Iterator[Simulation]:
    """One V100 PCIe whose time stands still but for ``advance``."""
    with (
        TemporaryDirectory() as folder,
        Simulation.create(Path(folder) / "gpus", model=MODEL, gpus=1, sensors="ideal", clock="manual") as simulation,
    ):
        yield simulation


def pace_and_power(profile: str, cap_w: int) -> tuple[float, float]:
    """Work done per second (1 is full speed), and mean power in watts, of a load that has been capped for a while."""
    with board() as simulation:
        simulation.set_limit(0, Milliwatts(cap_w * 1000))
        simulation.load(0, profile)
        simulation.advance(WARM_S)
        before = simulation.gpu(0)
        simulation.advance(RUN_S)
        after = simulation.gpu(0)
    return (after.work_done_s - before.work_done_s) / RUN_S, (after.energy_mj - before.energy_mj) / RUN_S / 1000


def relative(profile: str, cap_w: int) -> tuple[float, float]:
    """Throughput and energy per unit of work under a cap, in percent of no cap."""
    full_pace, full_w = pace_and_power(profile, 250)
    pace, power_w = pace_and_power(profile, cap_w)
    return 100 * pace / full_pace, 100 * (power_w / pace) / (full_w / full_pace)


def step_response(from_w: int, to_w: int, until_s: float, every_s: float = 0.01) -> list[tuple[float, float]]:
    """Seconds since a change of the limit, and watts then, of a GPU that would draw 250 W."""
    seen = []
    with board() as simulation:
        simulation.set_limit(0, Milliwatts(from_w * 1000))
        simulation.load(0, 1.0)
        simulation.advance(WARM_S)
        simulation.set_limit(0, Milliwatts(to_w * 1000))
        for step in range(round(until_s / every_s) + 1):
            seen.append((step * every_s, simulation.gpu(0).power_mw / 1000))
            simulation.advance(every_s)
    return seen
