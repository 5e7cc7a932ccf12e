"""Simulated GPUs as they truly are: what ``Simulation.show`` answers."""

from dataclasses import dataclass
from typing import Literal

from wattkeeper.simulator.structures import ALL, NEVER, CFaults, CGpu, CNode, CProcess
from wattkeeper.units import Millijoules, Milliwatts

Profile = Literal["none", "driver"]
ClockMode = Literal["real", "manual"]
FaultKind = Literal[
    "hang",
    "slow",
    "lost",
    "reset-required",
    "unknown",
    "timeout",
    "irq",
    "no-driver",
    "wrong-driver",
    "no-permission",
    "in-use",
    "ignored",
    "oob",
    "counter-stuck",
]

PROFILES: tuple[Profile, ...] = ("none", "driver")
CLOCK_MODES: tuple[ClockMode, ...] = ("real", "manual")
FAULTS: tuple[FaultKind, ...] = (
    *("hang", "slow", "lost", "reset-required", "unknown", "timeout", "irq", "no-driver", "wrong-driver"),
    *("no-permission", "in-use", "ignored", "oob", "counter-stuck"),
)
"""In the order of ``enum wk_fault``."""
LIBRARY_FAULTS: tuple[FaultKind, ...] = ("hang", "slow", "unknown", "timeout", "irq", "no-driver", "wrong-driver")
GPU_FAULTS: tuple[FaultKind, ...] = tuple(kind for kind in FAULTS if kind not in {"no-driver", "wrong-driver"})

_ANSWERS: dict[FaultKind, int] = {
    "lost": 15,
    "reset-required": 16,
    "unknown": 999,
    "timeout": 10,
    "irq": 11,
    "no-driver": 9,
    "wrong-driver": 18,
}
"""``nvmlReturn_t`` that every call answers."""
_SET_ANSWERS: dict[FaultKind, int] = {"no-permission": 4, "in-use": 19}


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a GPU. One that ``lives`` leaves the list when the process of that pid has ended."""

    pid: int
    use: float = 1.0  # its share of the GPU's use, 0 to 1
    memory_mib: int = 0
    instance: int | None = None  # of MIG: its place in ``Gpu.mig``
    lives: bool = True


@dataclass(frozen=True, slots=True)
class Instance:
    """A MIG instance. Its UUID is made when it is created."""

    slices: int
    memory_mib: int
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A simulated GPU as it truly is: neither sensors, latency nor faults stand between."""

    minor: int
    index: int  # NVML's, which need not be the minor number
    uuid: str
    name: str
    model: str
    pci_bus_id: str
    min_mw: Milliwatts
    default_mw: Milliwatts
    max_mw: Milliwatts
    module_min_mw: Milliwatts
    module_max_mw: Milliwatts  # 0: it shares no module's limit
    idle_mw: Milliwatts
    peak_mw: Milliwatts
    requested_mw: Milliwatts
    module_mw: Milliwatts | None  # the limit of the module that it shares with a CPU
    enforced_mw: Milliwatts  # below requested where an out-of-band limit or the module's leaves less
    acting_mw: Milliwatts  # on its way to enforced
    natural_mw: Milliwatts  # what the load would draw now without a limit
    power_mw: Milliwatts
    sensed_mw: Milliwatts  # what its sensor says
    gain: float  # how much more its sensors read than it draws, as a ratio
    clock_mhz: int
    speed: float  # 0 to 1, of full speed
    use: float  # 0 to 1
    temperature_c: float
    load: float  # 0 to 1: what it would draw now, between idle and the model's peak
    load_name: str | None  # None: idle
    load_started_ns: int
    load_ends_ns: int | None  # as things stand; None: not by itself
    work_goal_s: float | None  # at full speed; None: no end
    work_done_s: float
    energy_mj: Millijoules  # since the driver was loaded
    counter_mj: Millijoules  # what NVML's counter says
    capped_ns: int  # for how long the limit has held it below natural_mw, since the driver was loaded
    xid_count: int
    persistence: bool
    mig: tuple[Instance, ...]  # empty: off
    processes: tuple[Process, ...]
    oob_limit_mw: Milliwatts | None
    faults: tuple[FaultKind, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A simulated node: every GPU, by minor number, at one instant."""

    gpus: tuple[Gpu, ...]
    now_ns: int
    clock: ClockMode
    profile: Profile  # of latency
    boot_id: str
    driver_version: str
    driver_generation: int  # counts the loads of the driver
    driver_loaded_ns: int
    writable: bool  # by this process
    faults: tuple[FaultKind, ...]  # of the whole library


def view_node(view: CNode) -> Node:
    """All of it."""
    return Node(
        gpus=tuple(view_gpu(view.gpus[minor]) for minor in range(view.gpu_count)),
        now_ns=view.now_ns,
        clock=CLOCK_MODES[view.clock_mode],
        profile=PROFILES[view.profile],
        boot_id=view.boot_id.decode(),
        driver_version=view.driver_version.decode(),
        driver_generation=view.driver_generation,
        driver_loaded_ns=view.driver_loaded_ns,
        writable=bool(view.writable),
        faults=_faults(view.faults),
    )


def view_gpu(view: CGpu) -> Gpu:
    """One GPU of it."""
    model = view.model
    gain = view.gain_ppm / 1_000_000
    span_mw = model.peak_mw - model.idle_mw
    seen_mw = view.natural_mw * (1 + gain)  # the model's figures are as sensors read them
    goal_ns, ends_ns = view.load_goal_ns, view.load_end_ns
    return Gpu(
        minor=view.minor,
        index=view.index,
        uuid=view.uuid.decode(),
        name=model.name.decode(),
        model=model.key.decode(),
        pci_bus_id=f"00000000:{view.pci_bus:02X}:00.0",
        min_mw=Milliwatts(model.min_mw),
        default_mw=Milliwatts(model.default_mw),
        max_mw=Milliwatts(model.max_mw),
        module_min_mw=Milliwatts(model.module_min_mw),
        module_max_mw=Milliwatts(model.module_max_mw),
        idle_mw=Milliwatts(model.idle_mw),
        peak_mw=Milliwatts(model.peak_mw),
        requested_mw=Milliwatts(view.requested_mw),
        module_mw=Milliwatts(view.module_mw) if view.module_mw else None,
        enforced_mw=Milliwatts(view.enforced_mw),
        acting_mw=Milliwatts(view.acting_mw),
        natural_mw=Milliwatts(view.natural_mw),
        power_mw=Milliwatts(view.power_mw),
        sensed_mw=Milliwatts(view.sensed_mw),
        gain=gain,
        clock_mhz=view.clock_mhz,
        speed=view.speed_ppm / 1_000_000,
        use=view.use_percent / 100,
        temperature_c=view.temperature_mc / 1_000,
        load=round(max(0.0, seen_mw - model.idle_mw) / span_mw, 4) if span_mw else 0.0,
        load_name=view.load.decode() or None,
        load_started_ns=view.load_start_ns,
        load_ends_ns=None if ends_ns == NEVER else ends_ns,
        work_goal_s=goal_ns / 1_000_000_000 if goal_ns else None,
        work_done_s=view.load_done_ns / 1_000_000_000,
        energy_mj=Millijoules(view.energy_mj),
        counter_mj=Millijoules(view.counter_mj),
        capped_ns=view.capped_ns,
        xid_count=view.xid_count,
        persistence=bool(view.persistence),
        mig=tuple(
            Instance(one.slices, one.memory_mib, one.uuid.decode()) for one in view.instances[: view.instance_count]
        ),
        processes=tuple(map(_process, view.processes[: view.process_count])),
        oob_limit_mw=Milliwatts(view.faults.oob_limit_mw) if view.faults.oob_limit_mw else None,
        faults=_faults(view.faults),
    )


def _process(view: CProcess) -> Process:
    return Process(
        pid=view.pid,
        use=view.use_bp / 10_000,
        memory_mib=view.memory_mib,
        instance=None if view.instance == ALL else view.instance,
        lives=bool(view.lives),
    )


def _faults(view: CFaults) -> tuple[FaultKind, ...]:
    on: dict[FaultKind, int] = {
        "hang": view.hang,
        "slow": view.slow_us,
        "ignored": view.set_ignored,
        "oob": view.oob_limit_mw,
        "counter-stuck": view.counter_sticks,
    }
    if not (view.answer or view.set_answer or any(on.values())):
        return ()
    on |= {kind: view.answer == answer for kind, answer in _ANSWERS.items()}
    on |= {kind: view.set_answer == answer for kind, answer in _SET_ANSWERS.items()}
    return tuple(kind for kind in FAULTS if on[kind])
