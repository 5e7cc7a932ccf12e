"""What runs on simulated GPUs: work, the power it draws, how limits act on it, and what sensors make of it."""

import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from wattkeeper.errors import ConfigError
from wattkeeper.simulator import (
    Gpu,
    Instance,
    Process,
    Segment,
    Simulation,
    SimulatorError,
    Trace,
    find_model,
    models,
    profiles,
)
from wattkeeper.units import Milliwatts

CAP = Milliwatts(300_000)


@pytest.fixture
def gpus(tmp_path: Path) -> Iterator[Simulation]:
    with Simulation.create(tmp_path / "gpus", gpus=2, sensors="ideal", clock="manual") as simulation:
        yield simulation


def powers(simulation: Simulation, minor: int, milliseconds: list[int]) -> list[int]:
    """The power so long from now, in milliwatts."""
    found, passed = [], 0
    for at in milliseconds:
        simulation.advance((at - passed) / 1000)
        passed = at
        found.append(int(simulation.gpu(minor).power_mw))
    return found


def finish(simulation: Simulation, minor: int) -> tuple[float, int]:
    """Lets a GPU do its work: how long that took in seconds, and what it drew in millijoules."""
    before = simulation.gpu(minor)
    assert before.load_ends_ns is not None
    simulation.advance((before.load_ends_ns - simulation.show().now_ns) / 1e9)
    after = simulation.gpu(minor)
    assert after.load_name is None
    assert after.load_ends_ns is not None
    return (after.load_ends_ns - after.load_started_ns) / 1e9, after.energy_mj - before.energy_mj


@pytest.mark.parametrize("profile", ["training", "bert", "resnet50", "inference"])
def test_work_takes_longer_under_a_cap_and_less_energy(gpus: Simulation, profile: str) -> None:
    gpus.set_limit(1, CAP)
    gpus.advance(1)
    gpus.load("all", profile, work_s=60)
    free_s, free_mj = finish(gpus, 0)
    assert free_s == pytest.approx(60, abs=0.001)
    assert gpus.gpu(1).load_name == profile
    assert 0 < gpus.gpu(1).work_done_s < 60
    capped_s = (gpus.gpu(1).load_ends_ns or 0) / 1e9 - 1
    gpus.advance(capped_s - free_s)
    capped = gpus.gpu(1)
    assert capped.load_name is None
    assert capped.work_done_s == pytest.approx(60, abs=0.001)
    assert 60.5 < capped_s < 150
    assert 0.4 < capped.energy_mj / free_mj < 0.95
    assert gpus.gpu(0).capped_ns < 100_000_000 < capped.capped_ns


def test_memory_bound_work_hardly_minds_a_cap(gpus: Simulation) -> None:
    gpus.set_limit(1, CAP)
    gpus.advance(1)
    took = []
    for profile in ("memory-bound", "steady"):
        gpus.load(1, profile, work_s=10)
        took.append(finish(gpus, 1)[0])
    assert took[0] < 11 < took[1]


def test_a_cap_half_way_moves_the_end(gpus: Simulation) -> None:
    gpus.load(0, "training", work_s=60)
    gpus.advance(30)
    before = gpus.gpu(0)
    assert before.work_done_s == pytest.approx(30)
    gpus.set_limit(0, CAP)
    after = gpus.gpu(0)
    assert after.work_done_s == before.work_done_s
    assert (after.load_ends_ns or 0) > (before.load_ends_ns or 0)
    gpus.set_limit(0, Milliwatts(700_000))
    assert (gpus.gpu(0).load_ends_ns or 0) == pytest.approx(before.load_ends_ns or 0, abs=1e9)


def test_a_limit_acts_in_steps_down_fast_and_up_slowly(gpus: Simulation) -> None:
    gpus.load(0, 1.0)
    gpus.advance(10)
    gpus.set_limit(0, CAP)
    assert powers(gpus, 0, [0, 10, 20, 30, 40, 50]) == [620_000, 540_000, 460_000, 380_000, 300_000, 300_000]
    gpus.set_limit(0, Milliwatts(700_000))
    seen = powers(gpus, 0, [0, 100, 250, 500, 520])
    assert seen == sorted(seen)
    assert seen[0] < 310_000
    assert seen[2] < 510_000
    assert seen[3] >= 300_000 + 0.95 * 400_000
    assert seen[4] == 700_000
    assert gpus.gpu(0).acting_mw == 700_000


def test_a_load_that_begins_overshoots_its_limit(gpus: Simulation) -> None:
    gpus.set_limit(0, CAP)
    gpus.advance(1)
    gpus.load(0, 1.0)
    assert powers(gpus, 0, [0, 49, 50]) == [480_000, 480_000, 300_000]
    assert gpus.gpu(0).speed < 1


def test_the_clock_falls_with_the_power(gpus: Simulation) -> None:
    gpus.load(0, 1.0)
    seen: list[Gpu] = []
    for watts in (700, 500, 300, 200):
        gpus.set_limit(0, Milliwatts(watts * 1000))
        gpus.advance(1)
        seen.append(gpus.gpu(0))
    assert [gpu.power_mw // 1000 for gpu in seen] == [700, 500, 300, 200]
    assert seen[0].clock_mhz == 1980
    assert seen[0].speed == 1
    for faster, slower in pairwise(seen):
        assert faster.clock_mhz > slower.clock_mhz >= 200
        assert faster.speed > slower.speed > 0


def test_every_profile_draws_between_idle_and_peak(gpus: Simulation) -> None:
    for profile in profiles():
        gpus.load(0, profile)
        gpus.load(1, profile, level=0.5)
        before = [gpu.energy_mj for gpu in gpus.show().gpus]
        gpus.advance(100)
        full, half = (now.energy_mj - was for now, was in zip(gpus.show().gpus, before, strict=True))
        assert 7_000_000 <= half <= full <= 70_000_000
        assert (half < full) is (profile != "idle")
        assert gpus.gpu(0).load_name == (None if profile == "idle" else profile)


def test_a_busy_gpu_gets_warm_and_cools_again(gpus: Simulation) -> None:
    cold = gpus.gpu(0).temperature_c
    gpus.load(0, 1.0)
    gpus.advance(600)
    warm = gpus.gpu(0).temperature_c
    assert warm > cold + 20
    gpus.load(0, 0)
    gpus.advance(600)
    assert gpus.gpu(0).temperature_c == pytest.approx(cold, abs=0.5)


def test_a_cards_sensors_lag_and_the_truth_does_not(tmp_path: Path) -> None:
    with Simulation.create(tmp_path, gpus=1, clock="manual") as gpus:
        gpus.advance(10.001)
        gpus.load(0, 0.5)
        gpus.advance(0.11)
        gpu = gpus.gpu(0)
        assert gpu.power_mw == 385_000
        assert 70_000 < gpu.sensed_mw < 300_000
        gpus.advance(2)
        gpu = gpus.gpu(0)
        assert gpu.sensed_mw == pytest.approx(385_000, abs=10)
        assert 0 <= gpu.energy_mj - gpu.counter_mj <= 385 * 100


@pytest.mark.parametrize("model", models())
def test_no_write_on_the_way_changes_what_sensors_say(tmp_path: Path, model: str) -> None:
    """A write settles a GPU's sums; sensors look further back than that."""
    chance = random.Random(3)  # noqa: S311  a repeatable order, not a secret
    waits = [chance.random() * 0.3 for _ in range(40)]
    seen: list[list[tuple[int, int]]] = []
    for writes in (False, True):
        with Simulation.create(tmp_path / str(writes), model=model, gpus=1, clock="manual") as gpus:
            gpus.load(0, "training")
            seen.append([])
            for wait in waits:
                gpus.advance(wait)
                if writes:
                    gpus.set_persistence(0, True)
                gpu = gpus.gpu(0)
                seen[-1].append((gpu.sensed_mw, gpu.counter_mj))
    assert seen[0] == seen[1]


def test_a_boards_gain_is_between_its_sensors_and_the_truth(tmp_path: Path) -> None:
    with Simulation.create(tmp_path, gpus=3, sensors="ideal", clock="manual", gain=[0.0, 0.05, -0.05]) as gpus:
        gpus.load("all", 1.0)
        gpus.set_limit("all", CAP)
        gpus.advance(1000)
        exact, more, less = gpus.show().gpus
    assert [gpu.sensed_mw for gpu in (exact, more, less)] == [300_000] * 3
    assert [gpu.power_mw for gpu in (exact, more, less)] == [300_000, 285_714, 315_789]
    assert [gpu.gain for gpu in (exact, more, less)] == [0, 0.05, -0.05]
    assert [gpu.load for gpu in (exact, more, less)] == [1.0] * 3
    assert exact.energy_mj == exact.counter_mj == more.counter_mj == less.counter_mj
    assert more.energy_mj == pytest.approx(more.counter_mj / 1.05, abs=1)


def test_models_mix_on_a_node(tmp_path: Path) -> None:
    with Simulation.create(tmp_path, model="H100:2,A100:1", limit_mw=CAP) as gpus:
        assert [gpu.model for gpu in gpus.show().gpus] == ["H100-SXM5", "H100-SXM5", "A100-SXM4-80GB"]
        assert {gpu.requested_mw for gpu in gpus.show().gpus} == {300_000}
    with Simulation.create(tmp_path, model=[find_model("V100"), find_model("A100")], replace=True) as gpus:
        assert [gpu.default_mw for gpu in gpus.show().gpus] == [300_000, 400_000]
    with pytest.raises(SimulatorError, match="takes no limit of 350 W"):
        Simulation.create(tmp_path, model="H100:2,V100:1", limit_mw=Milliwatts(350_000), replace=True)
    with pytest.raises(SimulatorError, match="2 gains are given for 4 GPUs"):
        Simulation.create(tmp_path, gain=[0.1, 0.2], replace=True)


def test_a_modules_limit_leaves_the_gpu_what_its_cpu_does_not_draw(tmp_path: Path) -> None:
    with Simulation.create(tmp_path, model="GH200", gpus=1, sensors="ideal", clock="manual") as gpus:
        companion_mw = find_model("GH200").companion_mw
        gpus.load(0, 1.0)
        gpus.set_module_limit(0, Milliwatts(600_000))
        gpus.advance(1)
        gpu = gpus.gpu(0)
        assert (gpu.module_mw, gpu.enforced_mw) == (600_000, 600_000 - companion_mw)
        assert gpu.power_mw <= gpu.natural_mw
        with pytest.raises(SimulatorError, match="takes no module limit of 5 W"):
            gpus.set_module_limit(0, Milliwatts(5_000))


def test_processes_and_instances_are_as_set(gpus: Simulation) -> None:
    gpus.set_mig(0, ["3g.40gb", "2g.20gb", Instance(1, 1024)])
    half, other, small = gpus.gpu(0).mig
    assert (half.slices, half.memory_mib, other.memory_mib, small.memory_mib) == (3, 40_779, 20_389, 1024)
    assert half.uuid.startswith("MIG-")
    assert half.uuid != other.uuid
    mine = [Process(1, 0.25, 500, instance=2), Process(4_000_000, 0.75, lives=False)]
    gpus.set_processes(0, mine)
    assert list(gpus.gpu(0).processes) == mine
    gpus.set_mig(0, [])
    assert (gpus.gpu(0).mig, gpus.gpu(0).processes) == ((), ())
    with pytest.raises(SimulatorError, match="allowed: 7 slices"):
        gpus.set_mig(0, ["4g.40gb", "4g.40gb"])
    with pytest.raises(SimulatorError, match="its MIG instances"):
        gpus.set_processes(0, [Process(1, instance=0)])
    with pytest.raises(SimulatorError, match="at most 8"):
        gpus.set_processes(0, [Process(1)] * 9)


def test_a_trace_is_played_once_or_over_and_over(gpus: Simulation) -> None:
    segments = (Segment(1, level=0.5), Segment(0.5, watts=133))
    gpus.load(0, Trace(segments, "mine"))
    gpus.load(1, Trace(segments, once=True))
    assert powers(gpus, 0, [999, 1000, 1499, 1500]) == [385_000, 133_000, 133_000, 385_000]
    assert (gpus.gpu(0).load_name, gpus.gpu(1).load_name) == ("mine", None)
    assert gpus.gpu(1).energy_mj == 385_000 + 133_000 // 2
    gpus.load("all", Trace(segments), work_s=10)
    gpus.advance(9.9)
    assert {gpu.load_name for gpu in gpus.show().gpus} == {"trace"}
    gpus.advance(0.2)
    assert {gpu.load_name for gpu in gpus.show().gpus} == {None}


def test_a_trace_comes_from_a_file_with_what_is_wrong_in_it(tmp_path: Path) -> None:
    file = tmp_path / "a night.csv"
    file.write_text("# of node 7\nSeconds, watts, memory\n10, 300, 0.5\n\n0.5,65.5,0\n")
    assert Trace.from_csv(file) == Trace((Segment(10, None, 300, 0.5), Segment(0.5, None, 65.5)), "a_night")
    file.write_text("seconds,watts\n10\n0,100\nten,3\n1,-5\n1,nan\n")
    with pytest.raises(ConfigError) as caught:
        Trace.from_csv(file)
    assert str(caught.value).replace(str(file), "f") == (
        "f:2: has 1 cells, not 2\n"
        "f:3: seconds 0 is out of bounds (allowed: 0.001 to 4294)\n"
        "f:4: seconds 'ten' is not a number\n"
        "f:5: watts -5 is out of bounds (allowed: 0 to 100000)\n"
        "f:6: watts nan is out of bounds (allowed: 0 to 100000)"
    )
    for text, said in (
        ("watts,seconds\n1,2\n", "1: the header is 'watts,seconds' (allowed: seconds,watts,memory)"),
        ("", "1: the header is ''"),
        ("seconds,watts\n", "1: has no rows"),
        ("seconds,watts\n" + "1,100\n" * 1025, "1026: more than 1024 rows"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            Trace.from_csv(file)
        assert said in str(caught.value)
    file.write_text("seconds,watts\n" + "1,100\n" * 1024)
    assert len(Trace.from_csv(file).segments) == 1024


def test_what_no_gpu_can_run_is_refused(gpus: Simulation) -> None:
    for wrong, said in (
        (lambda: gpus.load(0, "nothing"), "no load 'nothing'"),
        (lambda: gpus.load(0, "bert", level=1.5), "between 0 and 1"),
        (lambda: gpus.load(0, "idle", work_s=5), "does no work"),
        (lambda: gpus.load(0, "bert", work_s=0), "1 ms"),
        (lambda: gpus.load(0, Trace((Segment(1, 1),)), after=5), "begins at once"),
        (lambda: Trace(()), "1 to 1024"),
        (lambda: Trace((Segment(1),)), "level or watts"),
        (lambda: Trace((Segment(1, 2),)), "level 2 is out of bounds"),
    ):
        with pytest.raises(SimulatorError, match=said):
            wrong()


def test_an_hour_of_eight_gpus_passes_in_moments(tmp_path: Path) -> None:
    """One event and one reading per second and GPU. 2 s here and now; generous, for machines that are busy."""
    with Simulation.create(tmp_path, gpus=8, clock="manual") as gpus:
        gpus.load("all", "training")
        start = time.process_time()
        for second in range(3600):
            for minor in range(8):
                gpus.set_limit(minor, Milliwatts(300_000 + 50_000 * (second % 2)))
            gpus.advance(1)
            node = gpus.show()
        spent_s = time.process_time() - start
    assert node.now_ns == 3_600_000_000_000
    assert spent_s < 10
