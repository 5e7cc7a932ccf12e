"""Scenarios: what happens to simulated GPUs, and when, from a YAML file.

    gpus: {model: H100, count: 4}                        # optional: else what is there
    clock: manual                                        # optional
    events:
      - {at: 0s, gpu: all, load: training}
      - {at: 10s, gpu: 1, fault: hang, for: 5s}
      - {at: 20s, gpu: 0, limit: 400W, every: 2s}        # another tool writing
      - {on: set-limit, gpu: 2, nth: 3, fault: ignored}
      - {at: 30s, reload-driver: true}
      - {at: 40s, gpu: 3, load: bert, work: 60s}

Strict like policy: every mistake is named at once, with its line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from wattkeeper.config.walk import Walk, raise_if_any
from wattkeeper.config.yaml_lines import Node, Null, parse, read_text
from wattkeeper.simulator.creation import SENSORS
from wattkeeper.simulator.library import SimulatorError
from wattkeeper.simulator.plans import Action, problem
from wattkeeper.simulator.scenario_events import Event, TraceStart, read_event, read_power, read_share, read_whole
from wattkeeper.simulator.simulation import Simulation
from wattkeeper.simulator.structures import MAX_ACTIONS, MAX_GPUS
from wattkeeper.simulator.views import CLOCK_MODES, PROFILES, ClockMode, Gpu

_GPUS = ("model", "count", "limit", "order", "profile", "seed", "sensors", "gain", "driver")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a file says. ``gpus``: what ``Simulation.create`` takes, where the file says so."""

    file: str
    gpus: Mapping[str, Any] | None
    clock: ClockMode | None
    events: tuple[Event, ...]

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads a file. Raises ``ConfigError`` with every mistake in it, and in the traces that it names."""
        path = Path(path)
        root, problems = parse(str(path), read_text(path))
        walk = Walk(str(path), list(problems))
        top = walk.table(root or Null(1), "", ("gpus", "clock", "events"), ("events",))
        gpus = _gpus(walk, top["gpus"][1]) if "gpus" in top else None
        clock = walk.choice(top["clock"][1], "clock", CLOCK_MODES) if "clock" in top else None
        nodes = walk.items(top["events"][1], "events") if "events" in top else ()
        events = [read_event(walk, node, f"events[#{at}]", path.parent) for at, node in enumerate(nodes, start=1)]
        raise_if_any(walk.problems)
        found = tuple(event for event in events if event is not None)
        return cls(str(path), gpus, cast("ClockMode | None", clock), found)

    def create(self, state: Path | str, *, replace: bool = False) -> Simulation:
        """The GPUs that ``gpus`` describes. Raises SimulatorError."""
        if self.gpus is None:
            raise SimulatorError(f"{self.file} names no GPUs to create (mend: gpus: {{model: H100, count: 4}})")
        return Simulation.create(state, **self.gpus, clock=self.clock or "real", replace=replace)

    def apply(self, simulation: Simulation) -> None:
        """Makes all of it happen; times count from now. Raises SimulatorError, and nothing happens then."""
        self._check(simulation)
        if self.clock is not None and simulation.show().clock != self.clock:
            simulation.set_clock(self.clock)
        start_s = simulation.show().now_ns / 1_000_000_000
        for event in self.events:
            if isinstance(event.deed, TraceStart):
                simulation.load(event.deed.gpu, event.deed.trace, work_s=event.deed.work_s)
                continue
            when = event.when.copy()
            if "at" in when:
                when["at"] += start_s
            simulation.act(event.deed, **when)

    def _check(self, simulation: Simulation) -> None:
        """Whether these GPUs take all of it, and there is room for what waits."""
        gpus = simulation.show().gpus
        wrong = [f"{self.file}:{event.line}: {said}" for event in self.events if (said := _problem(event, gpus))]
        if wrong:
            raise SimulatorError("\n".join(wrong))
        waiting = [event for event in self.events if event.when and event.when != {"at": 0.0}]
        needed = sum(2 if "lasting" in event.when else 1 for event in waiting)
        free = MAX_ACTIONS - len(simulation.plans())
        if needed > free:
            raise SimulatorError(
                f"{self.file}: {needed} things to plan, but there is room for {free} (mend: say `every`, or split the "
                "file; what ends by `for` counts twice)"
            )


def _problem(event: Event, gpus: tuple[Gpu, ...]) -> str | None:
    deed = event.deed if isinstance(event.deed, Action) else Action.gpu_reset(event.deed.gpu)
    return problem(deed, gpus)


def _gpus(walk: Walk, node: Node) -> Mapping[str, Any]:
    """What ``Simulation.create`` takes."""
    parts = walk.table(node, "gpus", _GPUS)
    taken: dict[str, Any] = {}
    for key, (_, value) in parts.items():
        path = f"gpus.{key}"
        match key:
            case "profile":
                taken[key] = walk.choice(value, path, PROFILES)
            case "sensors":
                taken[key] = walk.choice(value, path, SENSORS)
            case "count":
                taken["gpus"] = read_whole(walk, value, path, 0, MAX_GPUS)
            case "limit":
                taken["limit_mw"] = read_power(walk, value, path)
            case "order":
                taken[key] = [read_whole(walk, one, path, 0, MAX_GPUS - 1) for one in walk.one_or_more(value, path)]
            case "gain":
                taken[key] = read_share(walk, value, path, -0.5, 0.5)
            case _:
                taken[key] = walk.text(value, path)
    return taken
