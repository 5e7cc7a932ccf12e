"""The simulated library through ctypes: its declarations, and errors a person can act on."""

import ctypes
import errno
import os
from ctypes import POINTER, c_char_p, c_uint, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path

from wattkeeper.errors import WattkeeperError
from wattkeeper.simulator.structures import (
    MAX_ACTIONS,
    MAX_GPUS,
    SIZED,
    CAction,
    CGpuSpec,
    CInstance,
    CLoad,
    CNode,
    CNodeSpec,
    CProcess,
    CSegment,
)

__all__ = ["MAX_GPUS", "SimulatorError", "describe", "find_library", "load_library", "profiles"]


class SimulatorError(WattkeeperError):
    """Simulated GPUs that cannot be created, opened or changed; the text names the mend."""


_SIGNATURES: dict[str, tuple[object, ...]] = {
    "wk_sim_create": (c_char_p, POINTER(CNodeSpec), POINTER(CGpuSpec), c_uint, POINTER(c_uint32), c_char_p),
    "wk_sim_open": (c_char_p, POINTER(c_void_p)),
    "wk_sim_read": (c_void_p, POINTER(CNode)),
    "wk_sim_act": (c_void_p, POINTER(CAction)),
    "wk_sim_forget_plans": (c_void_p,),
    "wk_sim_set_load": (c_void_p, c_uint, POINTER(CLoad), POINTER(CSegment)),
    "wk_sim_set_processes": (c_void_p, c_uint, POINTER(CProcess), c_uint),
    "wk_sim_set_instances": (c_void_p, c_uint, POINTER(CInstance), c_uint),
    "wk_sim_set_boot_id": (c_void_p, c_char_p),
    "wk_sim_set_clock_mode": (c_void_p, c_uint32),
    "wk_sim_advance": (c_void_p, c_uint64),
}


def find_library() -> Path:
    """The simulated ``libnvidia-ml.so.1`` of this installation. Raises SimulatorError where it was not built."""
    path = Path(__file__).parent / "lib" / "libnvidia-ml.so.1"
    if not path.is_file():
        raise SimulatorError(
            f"the simulated GPUs are not built: there is no {path} (mend: install a C compiler, then install "
            "wattkeeper again; in a source tree run `python daemon/build_simulator.py`)"
        )
    return path


def load_library(path: Path | None = None) -> ctypes.CDLL:
    """Loads the simulated library, from ``path`` or as installed, with its controls declared.

    From then on an NVML client *in this process* gets the simulated library too, for the loader goes by the
    SONAME: what runs a real node must not call this. Raises SimulatorError.
    """
    path = path or find_library()
    try:
        library = ctypes.CDLL(str(path))
        for name, arguments in _SIGNATURES.items():
            getattr(library, name).argtypes = arguments
        library.wk_sim_close.argtypes = (c_void_p,)
        library.wk_sim_close.restype = None
        library.wk_sim_profile_name.argtypes = (c_uint,)
        library.wk_sim_profile_name.restype = c_char_p
        library.wk_sim_size.argtypes = (c_uint,)
        library.wk_sim_size.restype = c_uint
        sizes = [library.wk_sim_size(n) for n in range(len(SIZED) + 1)]
    except (OSError, AttributeError) as error:
        raise SimulatorError(f"cannot use {path}: {error} (mend: install wattkeeper again)") from error
    if sizes != [*map(ctypes.sizeof, SIZED), 0]:
        raise SimulatorError(f"{path} was built from other sources (mend: install wattkeeper again)")
    return library


@cache
def profiles() -> tuple[str, ...]:
    """The loads that can be put on a GPU by name, in the library's order. Raises SimulatorError."""
    library = load_library()
    names: list[str] = []
    while (name := library.wk_sim_profile_name(len(names))) is not None:
        names.append(name.decode())
    return tuple(names)


def describe(code: int, state: Path) -> str:
    """What a control's errno means for the person whose state folder it is, with the mend."""
    file = state / "state"
    known = {
        errno.ENOENT: f"there are no simulated GPUs in {state} (mend: wattkeeper sim env --state {state})",
        errno.EEXIST: f"there are simulated GPUs in {state} already (mend: --replace, or another folder)",
        errno.EBADMSG: f"{file} is damaged or of another version (mend: wattkeeper sim env --state {state} --replace)",
        errno.ESTALE: f"{file} was replaced meanwhile (mend: open it again)",
        errno.EACCES: f"{file} may only be changed by its owner or root",
        errno.ENOSPC: f"{state}: only {MAX_ACTIONS} things can be planned at a time (mend: wattkeeper sim reset)",
    }
    return known.get(code, f"{file}: {os.strerror(code)}")
