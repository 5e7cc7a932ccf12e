"""The simulated library through ctypes: its declarations, and errors a person can act on."""

import ctypes
import errno
import os
from pathlib import Path

from wattkeeper.errors import WattkeeperError

MAX_GPUS = 16
_UUID_SIZE = 48
_BOOT_ID_SIZE = 40

_u32 = ctypes.c_uint32
_u64 = ctypes.c_uint64


class SimulatorError(WattkeeperError):
    """Simulated GPUs that cannot be created, opened or changed; the text names the mend."""


class GpuView(ctypes.Structure):
    """``struct wk_gpu_view`` of controls.h."""

    _fields_ = (
        ("uuid", ctypes.c_char * _UUID_SIZE),
        ("name", ctypes.c_char * 64),
        ("model", ctypes.c_char * 16),
        ("minor", _u32),
        ("index", _u32),
        ("pci_bus", _u32),
        ("min_mw", _u32),
        ("default_mw", _u32),
        ("max_mw", _u32),
        ("requested_mw", _u32),
        ("enforced_mw", _u32),
        ("natural_mw", _u32),
        ("power_mw", _u32),
        ("temperature_c", _u32),
        ("load_bp", _u32),
        ("oob_limit_mw", _u32),
        ("hang", _u32),
        ("hang_ms", _u32),
        ("lost", _u32),
        ("set_ignored", _u32),
        ("set_refused", _u32),
        ("energy_mj", _u64),
        ("capped_ns", _u64),
    )


class NodeView(ctypes.Structure):
    """``struct wk_node_view`` of controls.h."""

    _fields_ = (
        ("boot_id", ctypes.c_char * _BOOT_ID_SIZE),
        ("clock_mode", _u32),
        ("profile", _u32),
        ("gpu_count", _u32),
        ("writable", _u32),
        ("now_ns", _u64),
        ("driver_generation", _u64),
        ("driver_loaded_ns", _u64),
        ("gpus", GpuView * MAX_GPUS),
    )


_SIM = ctypes.c_void_p
_SIGNATURES: dict[str, tuple[object, ...]] = {
    "wk_sim_create": (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_uint,
        ctypes.POINTER(_u32),
        ctypes.c_char_p,
        _u32,
        _u32,
        ctypes.c_bool,
    ),
    "wk_sim_open": (ctypes.c_char_p, ctypes.POINTER(_SIM)),
    "wk_sim_read": (_SIM, ctypes.POINTER(NodeView)),
    "wk_sim_set_limit": (_SIM, ctypes.c_uint, _u32),
    "wk_sim_set_load": (_SIM, ctypes.c_uint, _u32),
    "wk_sim_set_fault": (_SIM, ctypes.c_uint, ctypes.c_char_p, _u32),
    "wk_sim_clear_fault": (_SIM, ctypes.c_uint, ctypes.c_char_p),
    "wk_sim_set_profile": (_SIM, _u32),
    "wk_sim_reload_driver": (_SIM,),
    "wk_sim_reboot": (_SIM,),
    "wk_sim_set_boot_id": (_SIM, ctypes.c_char_p),
    "wk_sim_set_clock_mode": (_SIM, _u32),
    "wk_sim_advance": (_SIM, _u64),
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
        library.wk_sim_close.argtypes = (_SIM,)
        library.wk_sim_close.restype = None
        library.wk_sim_model_key.argtypes = (ctypes.c_uint,)
        library.wk_sim_model_key.restype = ctypes.c_char_p
        size = int(library.wk_sim_view_size())
    except (OSError, AttributeError) as error:
        raise SimulatorError(f"cannot use {path}: {error} (mend: install wattkeeper again)") from error
    if size != ctypes.sizeof(NodeView):
        raise SimulatorError(f"{path} was built from other sources (mend: install wattkeeper again)")
    return library


def describe(code: int, state: Path) -> str:
    """What a control's errno means for the person whose state folder it is, with the mend."""
    file = state / "state"
    known = {
        errno.ENOENT: f"there are no simulated GPUs in {state} (mend: wattkeeper sim env --state {state})",
        errno.EEXIST: f"there are simulated GPUs in {state} already (mend: --replace, or another folder)",
        errno.EBADMSG: f"{file} is damaged or of another version (mend: wattkeeper sim env --state {state} --replace)",
        errno.ESTALE: f"{file} was replaced meanwhile (mend: open it again)",
        errno.EACCES: f"{file} may only be changed by its owner or root",
    }
    return known.get(code, f"{file}: {os.strerror(code)}")
