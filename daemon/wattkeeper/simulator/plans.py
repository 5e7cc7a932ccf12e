"""What can be done to simulated GPUs, as data: at once, at a time, or when something happens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypedDict

from wattkeeper.simulator.library import SimulatorError, profiles
from wattkeeper.simulator.structures import ALL, LIBRARY, NEVER, CAction, Event, Fault, Kind
from wattkeeper.simulator.views import FAULTS, GPU_FAULTS, LIBRARY_FAULTS, PROFILES, FaultKind, Gpu, Profile
from wattkeeper.units import Milliwatts, format_power

Target = int | Literal["all", "library"]
"""A GPU's minor number, all of them, or (for faults) the library as a whole."""

EventName = Literal["set-limit", "open"]

EVENTS: dict[EventName, Event] = {"set-limit": Event.SET_LIMIT, "open": Event.OPEN}
_SECOND_NS = 1_000_000_000
_MOST_S = 2**60 / _SECOND_NS


@dataclass(frozen=True, slots=True)
class _Value:
    """What a fault takes: in the library's unit, from ``least`` on, and up to ``most`` of ours."""

    scale: int
    least: int
    most: int
    allowed: str


_VALUES: Mapping[str, _Value] = {
    "hang": _Value(1_000, 0, 86_400, "0 to 86400 s; 0: until mended"),
    "slow": _Value(1_000_000, 1, 3_600, "1 us to 3600 s"),
    "oob": _Value(1, 1, 100_000_000, "1 mW to 100 kW"),
}


class When(TypedDict, total=False):
    """When something is done; at once where this is empty. Times are in seconds of the GPUs' time.

    ``at``: then. ``after``: so long from now, or from the event. ``on``: when an NVML client that may do so sets the
    limit of the GPU at hand, or opens the library, for the ``nth`` time. ``every``: and again after so long.
    ``lasting``: undone after so long.
    """

    at: float
    after: float
    on: EventName
    nth: int
    every: float
    lasting: float


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is done to GPUs. Made by the class methods, which raise SimulatorError."""

    kind: Kind
    gpu: Target = "all"
    name: str = ""  # of a fault or a profile of load
    level: float = 1.0  # of a load
    value: int = 0  # in the unit of the kind: mW, mJ, ms, us

    @classmethod
    def limit(cls, gpu: Target, limit_mw: Milliwatts) -> Self:
        """Another tool sets the requested limit."""
        return cls(Kind.SET_LIMIT, gpu, value=limit_mw)

    @classmethod
    def module_limit(cls, gpu: Target, limit_mw: Milliwatts) -> Self:
        """The same of the limit of the module that a GPU shares with a CPU."""
        return cls(Kind.SET_MODULE_LIMIT, gpu, value=limit_mw)

    @classmethod
    def load(cls, gpu: Target, profile: str, level: float = 1.0, work_s: float | None = None) -> Self:
        """A load begins: so much (0 to 1) of a profile, for so many seconds of work at full speed; None: no end."""
        if profile not in profiles():
            raise SimulatorError(f"no load {profile!r} (allowed: {', '.join(profiles())}, or a ratio from 0 to 1)")
        if not 0 <= level <= 1:
            raise SimulatorError(f"a load is between 0 and 1, not {level}")
        if work_s is not None and (profile == "idle" or level == 0):
            raise SimulatorError("an idle GPU does no work")
        return cls(Kind.START_LOAD, gpu, profile, round(level, 4), work_ms(work_s))

    @classmethod
    def fault(cls, gpu: Target, kind: FaultKind, value: float | None = None) -> Self:
        """Breaks a GPU, or the library, for NVML's clients. ``value``: ``Simulation.fault`` says of what."""
        _check_fault(gpu, kind)
        taken = _VALUES.get(kind)
        if taken is None and value is not None:
            raise SimulatorError(f"fault {kind} cannot have the value {value} (allowed: none)")
        number = 0
        if taken is not None:
            number = round((value or 0) * taken.scale)
            if not taken.least <= number <= taken.most * taken.scale:
                raise SimulatorError(f"fault {kind} cannot have the value {value} (allowed: {taken.allowed})")
        return cls(Kind.BREAK, gpu, kind, value=number)

    @classmethod
    def mend(cls, gpu: Target, kind: FaultKind | None = None) -> Self:
        """Mends one fault, or all."""
        if kind is not None:
            _check_fault(gpu, kind)
        return cls(Kind.MEND, gpu, kind or "")

    @classmethod
    def counter_jump(cls, gpu: Target, energy_mj: int) -> Self:
        """NVML's energy counter jumps, by less than nothing too; what was truly drawn stays."""
        if not -(10**15) <= energy_mj <= 10**15:
            raise SimulatorError(f"no counter jumps by {energy_mj} mJ (allowed: at most 10^15 either way)")
        return cls(Kind.JUMP_COUNTER, gpu, value=energy_mj)

    @classmethod
    def xid(cls, gpu: Target, xid: int) -> Self:
        """The driver reports an error."""
        if not 0 < xid <= 999:
            raise SimulatorError(f"no XID {xid} (allowed: 1 to 999)")
        return cls(Kind.RAISE_XID, gpu, value=xid)

    @classmethod
    def persistence(cls, gpu: Target, on: bool) -> Self:
        """Without persistence mode the driver forgets limits when the last client has gone."""
        return cls(Kind.SET_PERSISTENCE, gpu, value=int(on))

    @classmethod
    def gpu_reset(cls, gpu: Target) -> Self:
        """The limit at its default, counters at 0; a lost GPU is back."""
        return cls(Kind.RESET_GPU, gpu)

    @classmethod
    def driver_reload(cls, gpu: Target = "all") -> Self:
        """The driver is loaded anew, for the whole node; ``gpu`` says whose event this waits for."""
        return cls(Kind.RELOAD_DRIVER, gpu)

    @classmethod
    def reboot(cls, gpu: Target = "all") -> Self:
        """The node starts anew; ``gpu`` as above."""
        return cls(Kind.REBOOT, gpu)

    @classmethod
    def latency(cls, profile: Profile) -> Self:
        """How long NVML's calls take from now on."""
        return cls(Kind.SET_LATENCY, value=PROFILES.index(profile))

    def undone(self) -> "Action":
        """What takes it back. Raises SimulatorError where nothing does."""
        match self.kind:
            case Kind.BREAK:
                return Action(Kind.MEND, self.gpu, self.name)
            case Kind.START_LOAD:
                return Action(Kind.START_LOAD, self.gpu, "idle")
            case Kind.SET_PERSISTENCE | Kind.SET_LATENCY:
                return Action(self.kind, self.gpu, value=1 - self.value)
            case _:
                raise SimulatorError(
                    f"{self} has no end (allowed: for faults, loads, persistence mode and latency; mend: plan the "
                    "next one)"
                )

    def __str__(self) -> str:
        return f"{_whose(self.gpu)}: {_SAID[self.kind](self)}"


_SAID: Mapping[Kind, Callable[[Action], str]] = {
    Kind.SET_LIMIT: lambda a: f"limit {format_power(Milliwatts(a.value))}",
    Kind.SET_MODULE_LIMIT: lambda a: f"module limit {format_power(Milliwatts(a.value))}",
    Kind.START_LOAD: lambda a: (
        f"load {a.name}"
        + ("" if a.level == 1 else f" at {a.level * 100:g}%")
        + (f", {a.value / 1000:g} s of work" if a.value else "")
    ),
    Kind.BREAK: lambda a: f"fault {a.name}" + _value_said(a),
    Kind.MEND: lambda a: f"mended of {a.name}" if a.name else "mended",
    Kind.JUMP_COUNTER: lambda a: f"counter jumps by {a.value / 1000:+g} J",
    Kind.RAISE_XID: lambda a: f"XID {a.value}",
    Kind.SET_PERSISTENCE: lambda a: f"persistence mode {'on' if a.value else 'off'}",
    Kind.RESET_GPU: lambda _: "GPU reset",
    Kind.RELOAD_DRIVER: lambda _: "driver loaded anew",
    Kind.REBOOT: lambda _: "reboot",
    Kind.SET_LATENCY: lambda a: f"latency {PROFILES[a.value]}",
}


def _value_said(action: Action) -> str:
    if not action.value:
        return ""
    if action.name == "oob":
        return f" {format_power(Milliwatts(action.value))}"
    return f" {action.value / _VALUES[action.name].scale:g} s"


def _whose(gpu: Target) -> str:
    return {"all": "all GPUs", "library": "library"}.get(str(gpu), f"GPU {gpu}")


@dataclass(frozen=True, slots=True)
class Plan:
    """An action that waits: for a time, or for an event to happen ``nth`` times and ``after_s`` to pass then."""

    action: Action
    at_s: float | None
    on: EventName | None
    nth: int
    after_s: float
    every_s: float | None

    def __str__(self) -> str:
        when = f"at {self.at_s:g} s" if self.at_s is not None else f"on {self.on}"
        if self.on:
            when += f" number {self.nth}" if self.nth > 1 else ""
            when += f", {self.after_s:g} s later" if self.after_s else ""
        return f"{when}: {self.action}" + (f"; again every {self.every_s:g} s" if self.every_s else "")


def work_ms(work_s: float | None) -> int:
    """Seconds of work as the library takes them; 0: no end. Raises SimulatorError."""
    if work_s is None:
        return 0
    if not 0.001 <= work_s <= 1e8:
        raise SimulatorError(f"no load has {work_s} s of work (allowed: 1 ms to 10^8 s)")
    return round(work_s * 1000)


def needs_now(when: When) -> bool:
    """Whether the times of ``when`` count from now."""
    return "on" not in when and ("after" in when or ("lasting" in when and "at" not in when))


def timed(action: Action, when: When, now_ns: int) -> list[CAction]:
    """An action, and the one that undoes it where it does not last, for the library. Raises SimulatorError."""
    if "on" in when and "at" in when:
        raise SimulatorError("a time or an event, not both (mend: after counts from it)")
    if "at" in when and "after" in when:
        raise SimulatorError("a time of the clock or so long from now, not both")
    if "nth" in when and "on" not in when:
        raise SimulatorError("nth counts events: `on` says which")
    if when.get("nth", 1) < 1:
        raise SimulatorError(f"an event cannot happen for the {when['nth']}th time")
    first = _structure(action)
    first.every_ns = nanoseconds(when["every"], least=0.001) if "every" in when else 0
    after_ns = nanoseconds(when.get("after", 0))
    if "on" in when:
        if when["on"] not in EVENTS:
            raise SimulatorError(f"no event {when['on']!r} (allowed: {', '.join(EVENTS)})")
        first.event, first.nth, first.delay_ns = EVENTS[when["on"]], when.get("nth", 1), after_ns
    elif "at" in when:
        first.at_ns = nanoseconds(when["at"])
    elif needs_now(when):
        first.at_ns = now_ns + after_ns
    if "lasting" not in when:
        return [first]
    last = _structure(action.undone())
    lasting_ns = nanoseconds(when["lasting"], least=0.001)
    if first.every_ns and lasting_ns >= first.every_ns:
        raise SimulatorError(f"what happens every {when['every']:g} s cannot last {when['lasting']:g} s")
    last.event, last.nth, last.every_ns = first.event, first.nth, first.every_ns
    if first.event:
        last.delay_ns = first.delay_ns + lasting_ns
    else:
        last.at_ns = first.at_ns + lasting_ns
    return [first, last]


def plan(view: CAction) -> Plan:
    """What waits in the library."""
    kind = Kind(view.kind)
    name = ""
    if kind is Kind.START_LOAD:
        name = profiles()[view.which]
    elif kind in {Kind.BREAK, Kind.MEND} and view.which != ALL:
        name = FAULTS[view.which]
    gpu: Target = "all" if view.gpu == ALL else "library" if view.gpu == LIBRARY else int(view.gpu)
    level = view.level_bp / 10_000 if kind is Kind.START_LOAD else 1.0
    waits = view.at_ns == NEVER
    return Plan(
        action=Action(kind, gpu, name, level, view.value),
        at_s=None if waits else view.at_ns / _SECOND_NS,
        on=next(name for name, event in EVENTS.items() if event == view.event) if waits else None,
        nth=max(1, view.nth) if waits else 1,
        after_s=view.delay_ns / _SECOND_NS if waits else 0.0,
        every_s=view.every_ns / _SECOND_NS if view.every_ns else None,
    )


def problem(action: Action, gpus: Sequence[Gpu]) -> str | None:
    """Why these GPUs do not take an action, with what they take; None: they do."""
    if isinstance(action.gpu, int) and not 0 <= action.gpu < len(gpus):
        return f"no GPU {action.gpu} (there are {len(gpus)}, numbered from 0)"
    if action.gpu == "library" and action.kind not in {Kind.BREAK, Kind.MEND}:
        return "only faults are of the library as a whole (mend: a minor number, or all)"
    if action.kind not in {Kind.SET_LIMIT, Kind.SET_MODULE_LIMIT}:
        return None
    wrong: list[str] = []
    of_module = action.kind is Kind.SET_MODULE_LIMIT
    for gpu in gpus if action.gpu == "all" else [gpu for gpu in gpus if gpu.minor == action.gpu]:
        least, most = (gpu.module_min_mw, gpu.module_max_mw) if of_module else (gpu.min_mw, gpu.max_mw)
        scope = "module limit" if of_module else "limit"
        if of_module and not most:
            wrong.append(f"GPU {gpu.minor} ({gpu.name}) shares no module with a CPU: it has no {scope}")
        elif not least <= action.value <= most:
            wrong.append(
                f"GPU {gpu.minor} ({gpu.name}) takes no {scope} of {format_power(Milliwatts(action.value))} "
                f"(allowed: {format_power(least)} to {format_power(most)})"
            )
    return "; ".join(wrong) or None


def nanoseconds(seconds: float, least: float = 0.0) -> int:
    """Seconds as the library counts them. Raises SimulatorError."""
    if not least <= seconds <= _MOST_S:
        raise SimulatorError(f"{seconds} s is no time that can be waited for (allowed: {least:g} s to {_MOST_S:.0f} s)")
    return round(seconds * _SECOND_NS)


def _check_fault(gpu: Target, kind: str) -> None:
    allowed = LIBRARY_FAULTS if gpu == "library" else GPU_FAULTS
    if kind in allowed:
        return
    hint = " is of the whole library" if kind in LIBRARY_FAULTS else ""
    hint = " is of one GPU" if not hint and kind in FAULTS else hint
    said = f"fault {kind}{hint}" if hint else f"no fault {kind!r}"
    raise SimulatorError(f"{said} (allowed: {', '.join(allowed)})")


def _structure(action: Action) -> CAction:
    which = 0
    if action.kind in {Kind.BREAK, Kind.MEND}:
        which = Fault(FAULTS.index(action.name)) if action.name in FAULTS else ALL
    elif action.kind is Kind.START_LOAD:
        which = profiles().index(action.name)
    gpu = {"all": ALL, "library": LIBRARY}.get(action.gpu) if isinstance(action.gpu, str) else action.gpu
    if gpu is None or not 0 <= gpu <= ALL:
        raise SimulatorError(f"no GPU {action.gpu}")
    level_bp = round(action.level * 10_000) if action.kind is Kind.START_LOAD else 0
    return CAction(gpu=gpu, kind=action.kind, which=which, level_bp=level_bp, value=action.value)
