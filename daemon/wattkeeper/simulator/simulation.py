"""Simulated GPUs from Python: create them, move what acts on them, look at the truth."""

import ctypes
import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from wattkeeper.simulator.library import (
    MAX_GPUS,
    GpuView,
    NodeView,
    SimulatorError,
    describe,
    find_library,
    load_library,
)
from wattkeeper.units import Millijoules, Milliwatts, format_power

Profile = Literal["none", "driver"]
FaultKind = Literal["hang", "lost", "ignored", "no-permission", "oob"]
ClockMode = Literal["real", "manual"]

PROFILES: tuple[Profile, ...] = ("none", "driver")
FAULTS: tuple[FaultKind, ...] = ("hang", "lost", "ignored", "no-permission", "oob")
CLOCK_MODES: tuple[ClockMode, ...] = ("real", "manual")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A simulated GPU as it truly is: neither latency nor faults stand between."""

    minor: int
    index: int  # NVML's, which need not be the minor number
    uuid: str
    name: str
    model: str
    pci_bus_id: str
    min_mw: Milliwatts
    default_mw: Milliwatts
    max_mw: Milliwatts
    requested_mw: Milliwatts
    enforced_mw: Milliwatts  # below requested where an out-of-band limit is lower
    natural_mw: Milliwatts  # what the load would draw without a limit
    power_mw: Milliwatts
    load: float  # 0 to 1
    temperature_c: int
    energy_mj: Millijoules  # since the driver was loaded
    capped_ns: int  # for how long the limit has held it below natural_mw
    oob_limit_mw: Milliwatts | None
    faults: tuple[FaultKind, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A simulated node: every GPU, by minor number, at one instant."""

    gpus: tuple[Gpu, ...]
    now_ns: int
    clock: ClockMode
    profile: Profile
    boot_id: str
    driver_generation: int  # counts the loads of the driver
    driver_loaded_ns: int
    writable: bool  # by this process


def _gpu(view: GpuView) -> Gpu:
    on = {
        "hang": view.hang,
        "lost": view.lost,
        "ignored": view.set_ignored,
        "no-permission": view.set_refused,
        "oob": view.oob_limit_mw,
    }
    return Gpu(
        minor=view.minor,
        index=view.index,
        uuid=view.uuid.decode(),
        name=view.name.decode(),
        model=view.model.decode(),
        pci_bus_id=f"00000000:{view.pci_bus:02X}:00.0",
        min_mw=Milliwatts(view.min_mw),
        default_mw=Milliwatts(view.default_mw),
        max_mw=Milliwatts(view.max_mw),
        requested_mw=Milliwatts(view.requested_mw),
        enforced_mw=Milliwatts(view.enforced_mw),
        natural_mw=Milliwatts(view.natural_mw),
        power_mw=Milliwatts(view.power_mw),
        load=view.load_bp / 10_000,
        temperature_c=view.temperature_c,
        energy_mj=Millijoules(view.energy_mj),
        capped_ns=view.capped_ns,
        oob_limit_mw=Milliwatts(view.oob_limit_mw) if view.oob_limit_mw else None,
        faults=tuple(kind for kind in FAULTS if on[kind]),
    )


def models() -> tuple[str, ...]:
    """The models that can be simulated, by the name that ``create`` takes."""
    library = load_library()
    keys: list[str] = []
    while (key := library.wk_sim_model_key(len(keys))) is not None:
        keys.append(key.decode())
    return tuple(keys)


class Simulation:
    """The simulated GPUs of one state folder. Use ``create`` or ``open``; every method raises SimulatorError.

    GPUs are named by minor number. Anything may hold the same folder open at the same time: other Simulations,
    NVML clients, other processes.
    """

    def __init__(self, state: Path, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self.state = state
        self._library = library
        self._handle = handle

    @classmethod
    def create(
        cls,
        state: Path | str,
        *,
        model: str = "H100",
        gpus: int = 4,
        order: Sequence[int] | None = None,
        limit_mw: Milliwatts | None = None,
        profile: Profile = "none",
        seed: str | None = None,
        replace: bool = False,
    ) -> Self:
        """Creates GPUs in the folder ``state`` and opens them.

        ``order``: the minor numbers in NVML's index order. ``limit_mw``: the limit found on every GPU, where it
        is not the model's default. ``profile``: ``driver`` for a real driver's latency. ``seed`` makes the
        UUIDs; without one they follow from this host's name and the folder's path.
        """
        state = Path(state).absolute()
        library = load_library()
        if order is not None and sorted(order) != list(range(gpus)):
            raise SimulatorError(f"order must name every minor number from 0 to {gpus - 1} once, not {order}")
        if not 0 <= gpus <= MAX_GPUS:
            raise SimulatorError(f"{gpus} GPUs cannot be simulated on one node (allowed: 0 to {MAX_GPUS})")
        try:
            if not state.is_dir():
                state.mkdir(parents=True)
                state.chmod(0o755)  # whatever the umask: every user may see the node's GPUs
        except OSError as error:
            raise SimulatorError(f"cannot create {state}: {error.strerror}") from error
        code = library.wk_sim_create(
            os.fsencode(state),
            model.encode(),
            gpus,
            None if order is None else (ctypes.c_uint32 * gpus)(*order),
            (seed or f"{socket.gethostname()}:{state}").encode(),
            limit_mw or 0,
            PROFILES.index(profile),
            replace,
        )
        if code == errno.ENODEV:
            raise SimulatorError(f"no model {model!r} (allowed: {', '.join(models())})")
        if code == errno.ERANGE:
            raise SimulatorError(f"a {model} takes no limit of {format_power(limit_mw or Milliwatts(0))}")
        if code:
            raise SimulatorError(describe(code, state))
        return cls.open(state)

    @classmethod
    def open(cls, state: Path | str) -> Self:
        """Opens the GPUs of the folder ``state``: for changes where this process may write them."""
        state = Path(state).absolute()
        library = load_library()
        handle = ctypes.c_void_p()
        code = library.wk_sim_open(os.fsencode(state), ctypes.byref(handle))
        if code:
            raise SimulatorError(describe(code, state))
        return cls(state, library, handle)

    def close(self) -> None:
        """Lets go of the state. The GPUs stay as they are."""
        if self._handle:
            self._library.wk_sim_close(self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def env(self) -> dict[str, str]:
        """What to set in the environment of an NVML client so that it sees these GPUs."""
        folder = str(find_library().parent)
        others = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path not in ("", folder)]
        return {"LD_LIBRARY_PATH": ":".join([folder, *others]), "WATTKEEPER_SIM_STATE": str(self.state)}

    def show(self) -> Node:
        """Everything, at one instant."""
        view = NodeView()
        self._check(self._library.wk_sim_read(self._open_handle(), ctypes.byref(view)))
        return Node(
            gpus=tuple(_gpu(view.gpus[minor]) for minor in range(view.gpu_count)),
            now_ns=view.now_ns,
            clock=CLOCK_MODES[view.clock_mode],
            profile=PROFILES[view.profile],
            boot_id=view.boot_id.decode(),
            driver_generation=view.driver_generation,
            driver_loaded_ns=view.driver_loaded_ns,
            writable=bool(view.writable),
        )

    def gpu(self, minor: int) -> Gpu:
        """One GPU of ``show()``."""
        gpus = self.show().gpus
        if not 0 <= minor < len(gpus):
            raise SimulatorError(f"{self.state} has no GPU {minor} (it has {len(gpus)}, numbered from 0)")
        return gpus[minor]

    def set_limit(self, minor: int, limit_mw: Milliwatts) -> None:
        """Sets the requested limit, as another tool would behind the agent's back."""
        code = self._library.wk_sim_set_limit(self._open_handle(), minor, limit_mw)
        if code == errno.ERANGE:
            gpu = self.gpu(minor)
            raise SimulatorError(
                f"GPU {minor} ({gpu.name}) takes no limit of {format_power(limit_mw)} "
                f"(allowed: {format_power(gpu.min_mw)} to {format_power(gpu.max_mw)})"
            )
        self._check(code, minor)

    def load(self, minor: int, ratio: float) -> None:
        """Puts work on a GPU: 0 is idle, 1 draws the model's peak where the limit allows."""
        if not 0 <= ratio <= 1:
            raise SimulatorError(f"a load is between 0 and 1, not {ratio}")
        self._check(self._library.wk_sim_set_load(self._open_handle(), minor, round(ratio * 10_000)), minor)

    def fault(self, minor: int, kind: FaultKind, value: float | None = None) -> None:
        """Breaks a GPU, for NVML clients only:

        ``hang``            calls block, for ``value`` seconds each, or until the fault is cleared
        ``lost``            calls answer GPU_IS_LOST
        ``ignored``         setting a limit succeeds and changes nothing
        ``no-permission``   setting a limit answers NO_PERMISSION
        ``oob``             an out-of-band limit of ``value`` milliwatts: enforced where it is below requested
        """
        number = round((value or 0) * (1_000 if kind == "hang" else 1))
        if not 0 <= number < 2**32 or (kind == "oob" and not number):
            raise SimulatorError(f"fault {kind} cannot have the value {value}")
        code = self._library.wk_sim_set_fault(self._open_handle(), minor, kind.encode(), number)
        self._check_fault(code, minor, kind)

    def clear_fault(self, minor: int, kind: FaultKind | None = None) -> None:
        """Mends one fault of a GPU, or all."""
        code = self._library.wk_sim_clear_fault(self._open_handle(), minor, kind.encode() if kind else None)
        self._check_fault(code, minor, kind or "")

    def set_profile(self, profile: Profile) -> None:
        """Sets how long NVML's calls take."""
        self._check(self._library.wk_sim_set_profile(self._open_handle(), PROFILES.index(profile)))

    def driver_reload(self) -> None:
        """Loads the driver anew: limits at their defaults, energy at 0. Load and faults stay."""
        self._check(self._library.wk_sim_reload_driver(self._open_handle()))

    def reboot(self) -> None:
        """Starts the node anew: a driver reload, and load and faults are gone, but for an out-of-band limit."""
        self._check(self._library.wk_sim_reboot(self._open_handle()))

    def set_clock(self, mode: ClockMode) -> None:
        """``manual`` stops the GPUs' time where it is, until ``advance``; ``real`` lets it run on from there."""
        self._check(self._library.wk_sim_set_clock_mode(self._open_handle(), CLOCK_MODES.index(mode)))

    def advance(self, seconds: float) -> None:
        """Moves the GPUs' time ahead, in either mode; exact to the nanosecond."""
        nanoseconds = round(seconds * 1_000_000_000)
        if not 0 <= nanoseconds < 2**62:
            raise SimulatorError(f"the time cannot be moved by {seconds} s")
        self._check(self._library.wk_sim_advance(self._open_handle(), nanoseconds))

    def forge_boot_id(self, boot_id: str) -> None:
        """Makes the state one that was left over from another boot of this machine."""
        self._check(self._library.wk_sim_set_boot_id(self._open_handle(), boot_id.encode()))

    def _open_handle(self) -> ctypes.c_void_p:
        if not self._handle:
            raise SimulatorError(f"the simulation of {self.state} has been closed")
        return self._handle

    def _check_fault(self, code: int, minor: int, kind: str) -> None:
        if code == errno.EINVAL:
            raise SimulatorError(f"no fault {kind!r} (allowed: {', '.join(FAULTS)})")
        self._check(code, minor)

    def _check(self, code: int, minor: int | None = None) -> None:
        if code == errno.ENODEV and minor is not None:
            self.gpu(minor)
        if code:
            raise SimulatorError(describe(code, self.state))
