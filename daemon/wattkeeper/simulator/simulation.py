"""Simulated GPUs from Python: create them, move what acts on them, look at the truth."""

import ctypes
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self, Unpack

from wattkeeper.simulator.creation import Sensors, gpu_specs, named_instances, node_spec
from wattkeeper.simulator.library import SimulatorError, describe, find_library, load_library
from wattkeeper.simulator.models import Model, shipped_models
from wattkeeper.simulator.plans import Action, Plan, Target, When, nanoseconds, needs_now, plan, problem, timed, work_ms
from wattkeeper.simulator.structures import ALL, MAX_ACTIONS, MAX_PROCESSES, CAction, CInstance, CLoad, CNode, CProcess
from wattkeeper.simulator.traces import Trace
from wattkeeper.simulator.variants import drivers, library_for, version_of
from wattkeeper.simulator.views import (
    CLOCK_MODES,
    ClockMode,
    FaultKind,
    Gpu,
    Instance,
    Node,
    Process,
    Profile,
    view_gpu,
    view_node,
)
from wattkeeper.units import Millijoules, Milliwatts

DRIVER = "580.65.06"


def models() -> tuple[str, ...]:
    """The models that can be simulated, by the name that ``create`` takes."""
    return tuple(shipped_models())


class Simulation:
    """The simulated GPUs of one state folder. Use ``create`` or ``open``; every method raises SimulatorError.

    GPUs are named by minor number, or all at once as ``"all"``. Anything may hold the same folder open at the same
    time: other Simulations, NVML clients, other processes. What takes ``**when`` happens at once, or when ``When``
    says: ``fault(1, "hang", after=10, lasting=5)``, ``set_limit(0, 400_000, on="set-limit", nth=3)``.
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
        model: str | Model | Sequence[Model] = "H100",
        gpus: int | None = None,
        order: Sequence[int] | None = None,
        limit_mw: Milliwatts | None = None,
        profile: Profile = "none",
        seed: str | None = None,
        replace: bool = False,
        sensors: Sensors = "card",
        clock: ClockMode = "real",
        gain: float | Sequence[float] = 0.0,
        driver: str = DRIVER,
    ) -> Self:
        """Creates GPUs in the folder ``state`` and opens them.

        ``model``: a name, a selection such as ``H100:2,A100:2``, the path of a YAML file, or models. ``gpus``: how
        many (4 where neither says). ``order``: the minor numbers in NVML's index order. ``limit_mw``: the limit
        found on every GPU, where it is not the model's default. ``profile``: ``driver`` for a real driver's latency.
        ``seed`` makes the UUIDs; without one they follow from this host's name and the folder's path. ``sensors``:
        ``ideal`` ones are always up to date and average nothing. A ``manual`` clock begins at 0 and is moved by
        ``advance``. ``driver``: a version, or the branch of an older one (``525``), whose library lacks what it lacked.
        ``gain``: how much more the sensors read than is drawn, as a ratio, of all GPUs or each.
        """
        state = Path(state).absolute()
        library = load_library()
        specs = gpu_specs(model, gpus, limit_mw, gain)
        count = len(specs)
        if order is not None and sorted(order) != list(range(count)):
            raise SimulatorError(f"order must name every minor number from 0 to {count - 1} once, not {order}")
        version = version_of(driver) if driver in drivers() else driver
        node = node_spec(version, profile, sensors, clock, replace)
        try:
            if not state.is_dir():
                state.mkdir(parents=True)
                state.chmod(0o755)  # whatever the umask: every user may see the node's GPUs
        except OSError as error:
            raise SimulatorError(f"cannot create {state}: {error.strerror}") from error
        code = library.wk_sim_create(
            os.fsencode(state),
            node,
            specs,
            count,
            None if order is None else (ctypes.c_uint32 * count)(*order),
            (seed or f"{socket.gethostname()}:{state}").encode(),
        )
        if code == errno.EINVAL:
            raise SimulatorError("the figures of a model contradict each other (mend: compare it with models.yaml)")
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
        folder = str(self.library_folder())
        others = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path not in ("", folder)]
        return {"LD_LIBRARY_PATH": ":".join([folder, *others]), "WATTKEEPER_SIM_STATE": str(self.state)}

    def library_folder(self) -> Path:
        """Where the ``libnvidia-ml.so.1`` of the driver lies that these GPUs have."""
        version = self._read().driver_version.decode()
        older = next((driver for driver in drivers() if version_of(driver) == version), None)
        return (find_library() if older is None else library_for(older)).parent

    def show(self) -> Node:
        """Everything, at one instant."""
        return view_node(self._read())

    def gpu(self, minor: int) -> Gpu:
        """One GPU of ``show()``."""
        view = self._read()
        if not 0 <= minor < view.gpu_count:
            raise SimulatorError(f"{self.state} has no GPU {minor} (it has {view.gpu_count}, numbered from 0)")
        return view_gpu(view.gpus[minor])

    def act(self, action: Action, **when: Unpack[When]) -> None:
        """Does something to GPUs, at once or when ``when`` says."""
        now_ns = 0
        if needs_now(when) or "lasting" in when:
            view = self._read()
            now_ns = view.now_ns
            if "lasting" in when and view.action_count + 2 > MAX_ACTIONS:
                raise SimulatorError(describe(errno.ENOSPC, self.state))
        for structure in timed(action, when, now_ns):
            self._act(action, structure)

    def plans(self) -> tuple[Plan, ...]:
        """What is planned: what has a time in its order, then what waits for events."""
        view = self._read()
        return tuple(map(plan, view.actions[: view.action_count]))

    def forget_plans(self) -> None:
        """Nothing is planned any more."""
        self._check(self._library.wk_sim_forget_plans(self._open_handle()))

    def set_limit(self, gpu: Target, limit_mw: Milliwatts, **when: Unpack[When]) -> None:
        """Sets the requested limit, as another tool would behind the agent's back."""
        self.act(Action.limit(gpu, limit_mw), **when)

    def set_module_limit(self, gpu: Target, limit_mw: Milliwatts, **when: Unpack[When]) -> None:
        """Sets the limit of the module that a GPU shares with a CPU (GH200)."""
        self.act(Action.module_limit(gpu, limit_mw), **when)

    def load(
        self,
        gpu: Target,
        what: float | str | Trace,
        *,
        level: float = 1.0,
        work_s: float | None = None,
        **when: Unpack[When],
    ) -> None:
        """Puts work on a GPU, in place of what it had.

        ``what``: 0 is idle and 1 draws the model's peak where the limit allows; or a profile of ``profiles()``, of
        which ``level`` takes less; or a ``Trace``, which can only begin at once. ``work_s``: seconds of work at full
        speed, after which the load ends: later, where a limit holds the GPU back.
        """
        if isinstance(what, Trace):
            if when or level != 1:
                raise SimulatorError("a trace begins at once, as it is (mend: leave out level and times)")
            self._play(gpu, what, work_s)
        elif isinstance(what, str):
            self.act(Action.load(gpu, what, level, work_s), **when)
        else:
            if not 0 <= what <= 1:
                raise SimulatorError(f"a load is between 0 and 1, not {what}")
            self.act(Action.load(gpu, "steady", what * level, work_s), **when)

    def fault(self, gpu: Target, kind: FaultKind, value: float | None = None, **when: Unpack[When]) -> None:
        """Breaks a GPU, or the whole ``"library"``, for NVML clients only:

        ``hang``            calls block, for ``value`` seconds each, or until the fault is cleared
        ``slow``            calls take ``value`` seconds longer
        ``lost``            calls answer GPU_IS_LOST, until the GPU is reset; likewise
                            ``reset-required``, ``unknown``, ``timeout`` and ``irq``
        ``no-driver``       of the library: calls and nvmlInit answer DRIVER_NOT_LOADED
        ``wrong-driver``    of the library: LIB_RM_VERSION_MISMATCH
        ``ignored``         setting a limit succeeds and changes nothing
        ``no-permission``   setting a limit answers NO_PERMISSION; ``in-use``: IN_USE
        ``oob``             an out-of-band limit of ``value`` milliwatts: enforced where it is below requested
        ``counter-stuck``   the energy counter stands still
        """
        self.act(Action.fault(gpu, kind, value), **when)

    def clear_fault(self, gpu: Target, kind: FaultKind | None = None, **when: Unpack[When]) -> None:
        """Mends one fault of a GPU or of the ``"library"``, or all."""
        self.act(Action.mend(gpu, kind), **when)

    def jump_counter(self, gpu: Target, energy_mj: Millijoules | int, **when: Unpack[When]) -> None:
        """Makes NVML's energy counter jump; what was truly drawn stays."""
        self.act(Action.counter_jump(gpu, energy_mj), **when)

    def raise_xid(self, gpu: Target, xid: int, **when: Unpack[When]) -> None:
        """Makes the driver report an error to those who wait for events."""
        self.act(Action.xid(gpu, xid), **when)

    def set_persistence(self, gpu: Target, enabled: bool, **when: Unpack[When]) -> None:
        """Persistence mode. Without it the driver forgets limits and counters when the last client has gone."""
        self.act(Action.persistence(gpu, enabled), **when)

    def set_profile(self, profile: Profile, **when: Unpack[When]) -> None:
        """Sets how long NVML's calls take."""
        self.act(Action.latency(profile), **when)

    def reset_gpu(self, gpu: Target, **when: Unpack[When]) -> None:
        """Resets a GPU: its limit at the default, counters at 0. A lost one is back. Its load stays."""
        self.act(Action.gpu_reset(gpu), **when)

    def driver_reload(self, **when: Unpack[When]) -> None:
        """Loads the driver anew: limits at default, energy at 0, NVML's sessions stale. Loads and faults stay."""
        self.act(Action.driver_reload(), **when)

    def reboot(self, **when: Unpack[When]) -> None:
        """Starts the node anew: a driver reload, and load and faults are gone, but for an out-of-band limit."""
        self.act(Action.reboot(), **when)

    def set_processes(self, minor: int, processes: Sequence[Process]) -> None:
        """Puts processes on a GPU, in place of those it had."""
        if len(processes) > MAX_PROCESSES:
            raise SimulatorError(f"a simulated GPU has at most {MAX_PROCESSES} processes, not {len(processes)}")
        structures = [
            CProcess(
                pid=process.pid,
                lives=process.lives,
                use_bp=round(process.use * 10_000),
                memory_mib=process.memory_mib,
                instance=ALL if process.instance is None else process.instance,
            )
            for process in processes
        ]
        count = len(structures)
        code = self._library.wk_sim_set_processes(self._open_handle(), minor, (CProcess * count)(*structures), count)
        if code == errno.ERANGE:
            raise SimulatorError(f"GPU {minor} cannot have these processes (allowed: use 0 to 1, its MIG instances)")
        self._check(code, minor)

    def set_mig(self, minor: int, instances: Sequence[Instance | str]) -> None:
        """Cuts a GPU into MIG instances (``"3g.40gb"``, or slices and memory); none turns MIG off.

        Its processes are gone.
        """
        gpu = self.gpu(minor)
        memory_mib = self._read().gpus[minor].model.memory_mib
        parts = named_instances(instances, memory_mib)
        structures = (CInstance * len(parts))(*(CInstance(slices=p.slices, memory_mib=p.memory_mib) for p in parts))
        code = self._library.wk_sim_set_instances(self._open_handle(), minor, structures, len(parts))
        if code == errno.ENOTSUP:
            raise SimulatorError(f"GPU {minor} ({gpu.name}) has no MIG")
        if code == errno.ERANGE:
            slices = self._read().gpus[minor].model.mig_slices
            raise SimulatorError(
                f"GPU {minor} ({gpu.name}) has less than these instances need: {sum(p.slices for p in parts)} slices "
                f"and {sum(p.memory_mib for p in parts)} MiB (allowed: {slices} slices and {memory_mib} MiB)"
            )
        self._check(code, minor)

    def set_clock(self, mode: ClockMode) -> None:
        """``manual`` stops the GPUs' time where it is, until ``advance``; ``real`` lets it run on from there."""
        self._check(self._library.wk_sim_set_clock_mode(self._open_handle(), CLOCK_MODES.index(mode)))

    def advance(self, seconds: float) -> None:
        """Moves the GPUs' time ahead, in either mode; exact to the nanosecond. What is planned on the way happens."""
        if not seconds >= 0:
            raise SimulatorError(f"the time cannot be moved by {seconds} s")
        self._check(self._library.wk_sim_advance(self._open_handle(), nanoseconds(seconds)))

    def forge_boot_id(self, boot_id: str) -> None:
        """Makes the state one that was left over from another boot of this machine."""
        self._check(self._library.wk_sim_set_boot_id(self._open_handle(), boot_id.encode()))

    def _play(self, gpu: Target, trace: Trace, work_s: float | None) -> None:
        if gpu == "library":
            raise SimulatorError("the library as a whole runs no load (mend: a minor number, or all)")
        goal_ns = work_ms(work_s) * 1_000_000
        for minor in [gpu] if isinstance(gpu, int) else [one.minor for one in self.show().gpus]:
            segments = trace.segments_for(self.gpu(minor))
            count = len(segments)
            load = CLoad(profile=trace.name.encode(), goal_ns=goal_ns, once=trace.once, count=count)
            array = (type(segments[0]) * count)(*segments)
            self._check(self._library.wk_sim_set_load(self._open_handle(), minor, load, array), minor)

    def _act(self, action: Action, structure: CAction) -> None:
        code = self._library.wk_sim_act(self._open_handle(), structure)
        if code in {errno.ERANGE, errno.ENODEV}:
            said = problem(action, self.show().gpus)
            raise SimulatorError(f"{self.state}: {said or f'{action} is out of its range'}")
        self._check(code)

    def _read(self) -> CNode:
        view = CNode()
        self._check(self._library.wk_sim_read(self._open_handle(), view))
        return view

    def _open_handle(self) -> ctypes.c_void_p:
        if not self._handle:
            raise SimulatorError(f"the simulation of {self.state} has been closed")
        return self._handle

    def _check(self, code: int, minor: int | None = None) -> None:
        if code == errno.ENODEV and minor is not None:
            self.gpu(minor)
        if code:
            raise SimulatorError(describe(code, self.state))
