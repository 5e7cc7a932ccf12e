"""One event of a scenario: what happens, to which GPU, and when."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from wattkeeper.config.walk import Walk
from wattkeeper.config.yaml_lines import Node, Text
from wattkeeper.errors import ConfigError
from wattkeeper.simulator.library import SimulatorError, profiles
from wattkeeper.simulator.plans import EVENTS, Action, EventName, Target, When, timed
from wattkeeper.simulator.traces import Trace
from wattkeeper.simulator.views import FAULTS, PROFILES, FaultKind, Profile
from wattkeeper.simulator.written import parse_energy, parse_share, parse_value, value_form
from wattkeeper.text import printable
from wattkeeper.units import Milliwatts, parse_power

_WHEN = ("at", "on", "nth", "after", "every", "for")
_DEEDS = (
    *("load", "fault", "mend", "limit", "module-limit", "counter-jump", "xid", "persistence"),
    *("reset-gpu", "reload-driver", "reboot", "latency"),
)
_OF_NODE = frozenset({"reload-driver", "reboot", "latency"})
_DETAILS = {"level": "load", "work": "load", "once": "load", "value": "fault"}
_KEYS = ("gpu", *_WHEN, *_DEEDS, *_DETAILS)
_TIMES = "a time such as 500ms, 10s or 2h"
_MOST_S = 1e8


@dataclass(frozen=True, slots=True)
class TraceStart:
    """A trace begins, at once: the library cannot keep one for later."""

    gpu: Target
    trace: Trace
    work_s: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """What happens, and when: times count from when the scenario is applied."""

    deed: Action | TraceStart
    when: When
    line: int


def read_event(walk: Walk, node: Node, path: str, folder: Path) -> Event | None:
    """An event; None where a problem was noted. Traces are read from ``folder``."""
    before = len(walk.problems)
    reader = _Reader(walk, node, path, folder)
    when = reader.when()
    deed = reader.deed()
    if deed is not None and len(walk.problems) == before:
        reader.check_together(deed, when)
    return Event(deed, when, node.line) if deed is not None and len(walk.problems) == before else None


def read_power(walk: Walk, node: Node, path: str) -> Milliwatts | None:
    """A power; None where a problem was noted."""
    text = walk.text(node, path, "a power such as 300W")
    power = None if text is None else parse_power(text)
    if text is not None and power is None:
        walk.error(node, path, f"'{printable(text, 60)}' is not a power", "such as 300W or 0.3kW")
    return power


def read_whole(walk: Walk, node: Node, path: str, least: int, most: int) -> int | None:
    """A whole number; None where a problem was noted."""
    allowed = f"{least} to {most}"
    text = walk.text(node, path, allowed)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        walk.error(node, path, f"'{printable(text, 60)}' is not possible", allowed)
        return None
    return int(text)


def read_share(walk: Walk, node: Node, path: str, least: float, most: float) -> float | None:
    """A percentage as a ratio; None where a problem was noted."""
    allowed = f"{least * 100:g}% to {most * 100:g}%"
    text = walk.text(node, path, allowed)
    share = None if text is None else parse_share(text)
    if text is not None and (share is None or not least <= share <= most):
        walk.error(node, path, f"'{printable(text, 60)}' is not possible", allowed)
        return None
    return share


class _Reader:
    def __init__(self, walk: Walk, node: Node, path: str, folder: Path) -> None:
        self._walk = walk
        self._node = node
        self._path = path
        self._folder = folder
        self._parts: Mapping[str, tuple[Text, Node]] = walk.table(node, path, _KEYS)

    def when(self) -> When:
        """The times of an event, as far as they are right."""
        when = When()
        for key, name in (("at", "at"), ("after", "after"), ("every", "every"), ("for", "lasting")):
            seconds = self._time(key, 0.0 if key in {"at", "after"} else 0.001)
            if seconds is not None:
                when[name] = seconds  # type: ignore[literal-required]
        if "on" in self._parts:
            event = self._walk.choice(self._at("on"), f"{self._path}.on", EVENTS)
            if event is not None:
                when["on"] = cast("EventName", event)
        if "nth" in self._parts:
            nth = read_whole(self._walk, self._at("nth"), f"{self._path}.nth", 1, 1_000_000)
            if nth is not None:
                when["nth"] = nth
        return when

    def deed(self) -> Action | TraceStart | None:
        """What happens."""
        if not self._parts:
            return None
        found = [key for key in _DEEDS if key in self._parts]
        if len(found) != 1:
            said = "does nothing" if not found else f"does several things: {', '.join(found)}"
            self._walk.error(self._node, self._path, said, f"one of {', '.join(_DEEDS)}")
            return None
        (key,) = found
        for detail, owner in _DETAILS.items():
            if detail in self._parts and owner != key:
                self._walk.error(self._parts[detail][0], f"{self._path}.{detail}", f"is of a {owner}, not of {key}")
        gpu = self._gpu(key)
        if gpu is None:
            return None
        try:
            return self._make(key, gpu)
        except SimulatorError as error:
            self._walk.error(self._at(key), f"{self._path}.{key}", str(error))
            return None

    def check_together(self, deed: Action | TraceStart, when: When) -> None:
        """Notes what is right by itself but not together."""
        if isinstance(deed, TraceStart):
            if when and when != {"at": 0.0}:
                self._walk.error(self._node, self._path, "a trace can only begin at 0s: nothing keeps it for later")
            return
        if "after" in when and "on" not in when:
            self._walk.error(self._node, f"{self._path}.after", "counts from an event", "on, or at instead")
            return
        try:
            timed(deed, when, 0)
        except SimulatorError as error:
            self._walk.error(self._node, self._path, str(error))

    def _at(self, key: str) -> Node:
        return self._parts[key][1]

    def _time(self, key: str, least: float) -> float | None:
        if key not in self._parts:
            return None
        return self._walk.duration(self._at(key), f"{self._path}.{key}", least, _MOST_S, _TIMES)

    def _gpu(self, key: str) -> Target | None:
        if "gpu" not in self._parts:
            if key not in _OF_NODE:
                self._walk.error(self._node, self._path, "'gpu' is missing")
            return "all" if key in _OF_NODE else None
        node, path = self._at("gpu"), f"{self._path}.gpu"
        allowed = "a minor number, all" + (", library" if key in {"fault", "mend"} else "")
        text = self._walk.text(node, path, allowed)
        if text == "all" or (text == "library" and key in {"fault", "mend"}):
            return cast("Target", text)
        if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 4):
            self._walk.error(node, path, f"'{printable(text, 60)}' is no GPU", allowed)
            return None
        return None if text is None else int(text)

    def _make(self, key: str, gpu: Target) -> Action | TraceStart | None:
        walk, node, path = self._walk, self._at(key), f"{self._path}.{key}"
        match key:
            case "load":
                return self._load(gpu)
            case "fault":
                return self._fault(gpu)
            case "mend":
                kind = walk.choice(node, path, (*FAULTS, "all"))
                return None if kind is None else Action.mend(gpu, None if kind == "all" else cast("FaultKind", kind))
            case "limit" | "module-limit":
                make = Action.limit if key == "limit" else Action.module_limit
                power = read_power(walk, node, path)
                return None if power is None else make(gpu, power)
            case "counter-jump":
                return self._counter_jump(gpu)
            case "xid":
                xid = read_whole(walk, node, path, 1, 999)
                return None if xid is None else Action.xid(gpu, xid)
            case "persistence":
                on = walk.flag(node, path)
                return None if on is None else Action.persistence(gpu, on)
            case "latency":
                profile = walk.choice(node, path, PROFILES)
                return None if profile is None else Action.latency(cast("Profile", profile))
        whole: Mapping[str, Callable[[Target], Action]] = {
            "reset-gpu": Action.gpu_reset,
            "reload-driver": Action.driver_reload,
            "reboot": Action.reboot,
        }
        return None if walk.choice(node, path, ("true",)) is None else whole[key](gpu)

    def _load(self, gpu: Target) -> Action | TraceStart | None:
        walk, node, path = self._walk, self._at("load"), f"{self._path}.load"
        text = walk.text(node, path, f"{', '.join(profiles())}, a percentage, or the path of a CSV file")
        work_s = self._time("work", 0.001)
        level = read_share(walk, self._at("level"), f"{self._path}.level", 0, 1) if "level" in self._parts else 1.0
        once = walk.flag(self._at("once"), f"{self._path}.once") if "once" in self._parts else False
        if text is None or level is None or once is None:
            return None
        if text.endswith(".csv"):
            if level != 1:
                walk.error(node, path, "a trace is played as it is: leave out 'level'")
            try:
                return TraceStart(gpu, Trace.from_csv(self._folder / text, once=once), work_s)
            except ConfigError as error:
                walk.problems.extend(error.problems)
                return None
        share = None if text in profiles() else parse_share(text)
        if share is None:
            return Action.load(gpu, text, level, work_s)
        if not 0 <= share <= 1:
            walk.error(node, path, f"'{printable(text, 60)}' is out of bounds", "0% to 100%")
            return None
        return Action.load(gpu, "steady", share * level, work_s)

    def _fault(self, gpu: Target) -> Action | None:
        kind = self._walk.choice(self._at("fault"), f"{self._path}.fault", FAULTS)
        if kind is None:
            return None
        fault = cast("FaultKind", kind)
        value: float | None = None
        form = value_form(fault)
        if "value" in self._parts:
            path = f"{self._path}.value"
            text = self._walk.text(self._at("value"), path, form)
            value = None if text is None else parse_value(fault, text)
            if text is not None and value is None:
                said = f"'{printable(text, 60)}' is no value of {fault}" if form else f"{fault} takes no value"
                self._walk.error(self._at("value"), path, said, form)
                return None
        return Action.fault(gpu, fault, value)

    def _counter_jump(self, gpu: Target) -> Action | None:
        path, allowed = f"{self._path}.counter-jump", "such as 5kJ or -500J"
        text = self._walk.text(self._at("counter-jump"), path, allowed)
        energy = None if text is None else parse_energy(text)
        if text is not None and energy is None:
            self._walk.error(self._at("counter-jump"), path, f"'{printable(text, 60)}' is not an energy", allowed)
        return None if energy is None else Action.counter_jump(gpu, energy)
