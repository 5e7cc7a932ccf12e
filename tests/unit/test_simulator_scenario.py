"""Scenarios: YAML that says what happens to simulated GPUs, and when."""

from pathlib import Path

import pytest

from wattkeeper.errors import ConfigError
from wattkeeper.simulator import Simulation, SimulatorError
from wattkeeper.simulator.plans import Action
from wattkeeper.simulator.scenario import Scenario
from wattkeeper.simulator.structures import Kind

DAY = """\
gpus: {model: "H100:2,A100:2", sensors: ideal, seed: same, order: [3, 1, 0, 2], gain: 2%, driver: 535.104.05}
clock: manual
events:
  - {at: 0s, gpu: all, load: training}
  - {at: 10s, gpu: 1, fault: hang, for: 5s}
  - {at: 20s, gpu: 0, limit: 400W, every: 4s}        # another tool writing
  - {on: set-limit, gpu: 2, nth: 3, fault: ignored}
  - {at: 30s, reload-driver: true}
  - {at: 40s, gpu: 3, load: bert, work: 60s}
"""
ALL = """\
events:
  - {at: 0s, gpu: 0, load: night.csv, work: 5s, once: true}
  - {gpu: 1, load: 75%, level: 50%}
  - {at: 1s, gpu: 0, load: inference, level: 80%, work: 1m, for: 2h}
  - {at: 2s, gpu: 0, fault: slow, value: 20ms}
  - {at: 3s, gpu: all, fault: oob, value: 250W}
  - {at: 4s, gpu: library, fault: no-driver, for: 5s}
  - {at: 5s, gpu: library, mend: all}
  - {at: 6s, gpu: 0, mend: slow}
  - {at: 7s, gpu: 1, limit: 0.3kW}
  - {at: 8s, gpu: 0, counter-jump: -1.5kJ}
  - {at: 9s, gpu: 0, xid: 79}
  - {at: 10s, gpu: 0, persistence: false, for: 1s}
  - {at: 11s, gpu: 0, reset-gpu: true}
  - {on: open, after: 500ms, nth: 2, every: 10s, reload-driver: true}
  - {at: 13s, reboot: true}
  - {at: 14s, latency: driver}
"""
WRONG = """\
gpus: {model: H100, count: 99, watts: 5}
clock: fast
event: []
events:
  - {at: soon, gpu: 1, fault: hang}
  - {gpu: 1}
  - {gpu: 1, fault: lots}
  - {gpu: 1, fault: lost, limit: 300W}
  - {fault: lost}
  - {gpu: one, fault: lost}
  - {gpu: library, limit: 300W}
  - {gpu: library, fault: lost}
  - {gpu: 1, fault: lost, value: 5s}
  - {gpu: 1, limit: 300W, for: 5s}
  - {gpu: 1, fault: hang, at: 1s, on: open}
  - {gpu: 1, fault: hang, after: 1s}
  - {gpu: 1, load: 120%}
  - {gpu: 1, load: nothing}
  - {gpu: 1, load: missing.csv}
  - {gpu: 1, xid: 5, work: 3s}
  - {gpu: 1, counter-jump: 5W}
  - {reboot: false}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "day.yaml"
    file.write_text(text)
    (folder / "night.csv").write_text("seconds,watts\n10,300\n")
    return file


def test_a_day_is_the_same_twice(tmp_path: Path) -> None:
    """Under a manual clock, to the byte: of what is shown, and of the state."""
    days = []
    for name in ("one", "two"):
        scenario = Scenario.load(written(tmp_path, DAY))
        with scenario.create(tmp_path / name) as gpus:
            scenario.apply(gpus)
            shown = [gpus.show()]
            for _ in range(120):
                gpus.advance(1)
                shown.append(gpus.show())
            days.append((shown, (tmp_path / name / "state").read_bytes()))
    assert days[0] == days[1]


def test_a_day_goes_as_written(tmp_path: Path) -> None:
    scenario = Scenario.load(written(tmp_path, DAY))
    with scenario.create(tmp_path / "gpus") as gpus:
        scenario.apply(gpus)
        assert [gpu.model for gpu in gpus.show().gpus] == ["H100-SXM5"] * 2 + ["A100-SXM4-80GB"] * 2
        assert [gpu.index for gpu in gpus.show().gpus] == [2, 1, 3, 0]
        assert {gpu.load_name for gpu in gpus.show().gpus} == {"training"}
        assert (gpus.gpu(0).gain, gpus.show().driver_version) == (0.02, "535.104.05")
        gpus.advance(12)
        assert gpus.gpu(1).faults == ("hang",)
        gpus.advance(10)
        assert (gpus.gpu(1).faults, gpus.gpu(0).requested_mw) == ((), 400_000)
        gpus.advance(9)
        assert (gpus.gpu(0).requested_mw, gpus.show().driver_generation) == (700_000, 2)
        gpus.advance(2)
        assert gpus.gpu(0).requested_mw == 400_000
        gpus.advance(67.2)
        assert gpus.gpu(3).load_name is None
        assert [str(plan) for plan in gpus.plans()] == [
            "at 104 s: GPU 0: limit 400 W; again every 4 s",
            "on set-limit number 3: GPU 2: fault ignored",
        ]


def test_times_count_from_when_it_is_applied(tmp_path: Path) -> None:
    scenario = Scenario.load(written(tmp_path, "events:\n  - {at: 10s, gpu: 0, fault: lost}\n"))
    with Simulation.create(tmp_path / "gpus", gpus=1, clock="manual") as gpus:
        gpus.advance(100)
        scenario.apply(gpus)
        assert [plan.at_s for plan in gpus.plans()] == [110]
        with pytest.raises(SimulatorError, match="names no GPUs"):
            scenario.create(tmp_path / "others")


def test_everything_can_be_said(tmp_path: Path) -> None:
    scenario = Scenario.load(written(tmp_path, ALL))
    kinds = {event.deed.kind for event in scenario.events if isinstance(event.deed, Action)}
    assert kinds == {*Kind} - {Kind.SET_MODULE_LIMIT}  # of which an H100 has none
    with Simulation.create(tmp_path / "gpus", gpus=2, sensors="ideal", clock="manual") as gpus:
        scenario.apply(gpus)
        assert [gpu.load_name for gpu in gpus.show().gpus] == ["night", "steady"]
        assert gpus.gpu(1).load == 0.375
        waiting = {plan.action.kind for plan in gpus.plans()}
        assert waiting == kinds
        gpus.advance(20)
        assert gpus.show().profile == "driver"
        assert [plan.on for plan in gpus.plans()] == [None, "open"]


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, WRONG)
    with pytest.raises(ConfigError) as caught:
        Scenario.load(file)
    lines = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
    assert [line.partition(" (allowed")[0] for line in lines] == [
        "day.yaml:1: gpus.watts: unknown key",
        "day.yaml:1: gpus.count: '99' is not possible",
        "day.yaml:2: clock: 'fast' is not one of these",
        "day.yaml:3: event: unknown key: did you mean 'events'?",
        "day.yaml:5: events[#1].at: 'soon' is not a duration",
        "day.yaml:6: events[#2]: does nothing",
        "day.yaml:7: events[#3].fault: 'lots' is not one of these: did you mean 'lost'?",
        "day.yaml:8: events[#4]: does several things: fault, limit",
        "day.yaml:9: events[#5]: 'gpu' is missing",
        "day.yaml:10: events[#6].gpu: 'one' is no GPU",
        "day.yaml:11: events[#7].gpu: 'library' is no GPU",
        "day.yaml:12: events[#8].fault: fault lost is of one GPU",
        "day.yaml:13: events[#9].value: lost takes no value",
        "day.yaml:14: events[#10]: GPU 1: limit 300 W has no end",
        "day.yaml:15: events[#11]: a time or an event, not both (mend: after counts from it)",
        "day.yaml:16: events[#12].after: counts from an event",
        "day.yaml:17: events[#13].load: '120%' is out of bounds",
        "day.yaml:18: events[#14].load: no load 'nothing'",
        "day.yaml:20: events[#16].work: is of a load, not of xid",
        "day.yaml:21: events[#17].counter-jump: '5W' is not an energy",
        "day.yaml:22: events[#18].reboot: 'false' is not one of these",
        "missing.csv: cannot be read: No such file or directory",
    ]


def test_what_these_gpus_cannot_do_is_said_before_anything_happens(tmp_path: Path) -> None:
    text = "events:\n  - {gpu: all, limit: 300W}\n  - {gpu: 5, fault: lost}\n  - {at: 5s, gpu: 0, limit: 900W}\n"
    text += "  - {gpu: 7, load: night.csv}\n"
    scenario = Scenario.load(written(tmp_path, text))
    with Simulation.create(tmp_path / "gpus", gpus=2, clock="manual") as gpus:
        with pytest.raises(SimulatorError) as caught:
            scenario.apply(gpus)
        said = str(caught.value).replace(f"{tmp_path}/", "").splitlines()
        assert said == [
            "day.yaml:3: no GPU 5 (there are 2, numbered from 0)",
            "day.yaml:4: GPU 0 (NVIDIA H100 80GB HBM3) takes no limit of 900 W (allowed: 200 W to 700 W)",
            "day.yaml:5: no GPU 7 (there are 2, numbered from 0)",
        ]
        assert gpus.gpu(0).requested_mw == 700_000
        many = "events:\n" + "  - {at: 5s, gpu: 0, fault: lost, for: 1s}\n" * 33
        with pytest.raises(SimulatorError, match="66 things to plan, but there is room for 64"):
            Scenario.load(written(tmp_path, many)).apply(gpus)
        assert gpus.plans() == ()
