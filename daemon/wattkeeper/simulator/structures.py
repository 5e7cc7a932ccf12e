"""The C library's structures through ctypes, field by field as in its headers: ``wk_sim_size`` guards against a slip.

Times are in nanoseconds, power in milliwatts, ``_bp`` in hundredths of a percent, ``_ppm`` in millionths.
"""

import ctypes
from enum import IntEnum

MAX_GPUS = 16
MAX_SEGMENTS = 1024
MAX_PROCESSES = 8
MAX_INSTANCES = 7
MAX_ACTIONS = 64
ALL = 2**32 - 1
LIBRARY = 2**32 - 2
NEVER = 2**64 - 1

_UUID_SIZE = 48
_BOOT_ID_SIZE = 40
_VERSION_SIZE = 24
_PROFILE_SIZE = 24

_u16 = ctypes.c_uint16
_u32 = ctypes.c_uint32
_u64 = ctypes.c_uint64
_i32 = ctypes.c_int32
_i64 = ctypes.c_int64


class Kind(IntEnum):
    """``enum wk_kind`` of actions.h: what an action does."""

    SET_LIMIT = 0
    SET_MODULE_LIMIT = 1
    START_LOAD = 2
    BREAK = 3
    MEND = 4
    JUMP_COUNTER = 5
    RAISE_XID = 6
    SET_PERSISTENCE = 7
    RESET_GPU = 8
    RELOAD_DRIVER = 9
    REBOOT = 10
    SET_LATENCY = 11


class Event(IntEnum):
    """``enum wk_event`` of actions.h: what an action waits for."""

    NONE = 0
    SET_LIMIT = 1
    OPEN = 2


class Fault(IntEnum):
    """``enum wk_fault`` of actions.h."""

    HANG = 0
    SLOW = 1
    LOST = 2
    RESET_REQUIRED = 3
    UNKNOWN = 4
    TIMEOUT = 5
    IRQ = 6
    NO_DRIVER = 7
    WRONG_DRIVER = 8
    NO_PERMISSION = 9
    IN_USE = 10
    IGNORED = 11
    OOB = 12
    COUNTER_STUCK = 13


class CModel(ctypes.Structure):
    """``struct wk_model`` of models.h."""

    _fields_ = (
        ("key", ctypes.c_char * 24),
        ("name", ctypes.c_char * 64),
        *(
            (name, _u32)
            for name in (
                *("default_mw", "min_mw", "max_mw", "module_default_mw", "module_min_mw", "module_max_mw"),
                *("idle_mw", "static_mw", "peak_mw", "companion_mw", "voltage_floor_bp", "overshoot_bp"),
                *("sm_clock_mhz", "min_clock_mhz", "memory_clock_mhz", "memory_mib"),
                *("ambient_mc", "resistance_uc", "thermal_ms", "slowdown_c", "shutdown_c"),
                *("power_update_ms", "power_window_ms", "instant_window_ms", "average_window_ms", "energy_update_ms"),
                *("pci_id", "architecture", "compute_major", "compute_minor", "brand", "mig_slices", "lacks"),
            )
        ),
    )


class CFaults(ctypes.Structure):
    """``struct wk_faults`` of state.h."""

    _fields_ = (
        ("hang", _u32),
        ("hang_ms", _u32),
        ("slow_us", _u32),
        ("answer", _u32),
        ("set_answer", _u32),
        ("set_ignored", _u32),
        ("counter_sticks", _u32),
        ("oob_limit_mw", _u32),
        ("stuck_mj", _u64),
    )


class CInstance(ctypes.Structure):
    """``struct wk_instance`` of state.h."""

    _fields_ = (("uuid", ctypes.c_char * _UUID_SIZE), ("slices", _u32), ("memory_mib", _u32))


class CProcess(ctypes.Structure):
    """``struct wk_process`` of state.h."""

    _fields_ = (("pid", _u32), ("lives", _u32), ("use_bp", _u32), ("memory_mib", _u32), ("instance", _u32))


class CSegment(ctypes.Structure):
    """``struct wk_segment`` of state.h."""

    _fields_ = (("duration_us", _u32), ("level_bp", _u16), ("memory_bp", _u16))


class CLoad(ctypes.Structure):
    """``struct wk_load`` of state.h."""

    _fields_ = (
        ("profile", ctypes.c_char * _PROFILE_SIZE),
        ("start_ns", _u64),
        ("end_ns", _u64),
        ("goal_ns", _u64),
        ("once", _u32),
        ("count", _u32),
    )


class CAction(ctypes.Structure):
    """``struct wk_action`` of state.h."""

    _fields_ = (
        ("at_ns", _u64),
        ("every_ns", _u64),
        ("delay_ns", _u64),
        ("event", _u32),
        ("nth", _u32),
        ("gpu", _u32),
        ("kind", _u32),
        ("which", _u32),
        ("level_bp", _u32),
        ("value", _i64),
    )


class CGpu(ctypes.Structure):
    """``struct wk_gpu_view`` of controls.h."""

    _fields_ = (
        ("model", CModel),
        ("uuid", ctypes.c_char * _UUID_SIZE),
        ("load", ctypes.c_char * _PROFILE_SIZE),
        ("minor", _u32),
        ("index", _u32),
        ("pci_bus", _u32),
        ("gain_ppm", _i32),
        ("requested_mw", _u32),
        ("module_mw", _u32),
        ("enforced_mw", _u32),
        ("acting_mw", _u32),
        ("natural_mw", _u32),
        ("power_mw", _u32),
        ("sensed_mw", _u32),
        ("clock_mhz", _u32),
        ("speed_ppm", _u32),
        ("temperature_mc", _u32),
        ("use_percent", _u32),
        ("persistence", _u32),
        ("mig", _u32),
        ("instance_count", _u32),
        ("process_count", _u32),
        ("faults", CFaults),
        ("instances", CInstance * MAX_INSTANCES),
        ("processes", CProcess * MAX_PROCESSES),
        ("energy_mj", _u64),
        ("counter_mj", _u64),
        ("capped_ns", _u64),
        ("xid_count", _u64),
        ("load_start_ns", _u64),
        ("load_end_ns", _u64),
        ("load_goal_ns", _u64),
        ("load_done_ns", _u64),
    )


class CNode(ctypes.Structure):
    """``struct wk_node_view`` of controls.h."""

    _fields_ = (
        ("boot_id", ctypes.c_char * _BOOT_ID_SIZE),
        ("driver_version", ctypes.c_char * _VERSION_SIZE),
        ("clock_mode", _u32),
        ("profile", _u32),
        ("gpu_count", _u32),
        ("writable", _u32),
        ("action_count", _u32),
        ("faults", CFaults),
        ("now_ns", _u64),
        ("driver_generation", _u64),
        ("driver_loaded_ns", _u64),
        ("actions", CAction * MAX_ACTIONS),
        ("gpus", CGpu * MAX_GPUS),
    )


class CGpuSpec(ctypes.Structure):
    """``struct wk_gpu_spec`` of controls.h."""

    _fields_ = (("model", CModel), ("limit_mw", _u32), ("gain_ppm", _i32))


class CNodeSpec(ctypes.Structure):
    """``struct wk_node_spec`` of controls.h."""

    _fields_ = (
        ("driver_version", ctypes.c_char * _VERSION_SIZE),
        ("profile", _u32),
        ("ideal_sensors", _u32),
        ("manual_clock", _u32),
        ("replace", _u32),
    )


SIZED: tuple[type[ctypes.Structure], ...] = (CNode, CGpuSpec, CNodeSpec, CAction, CLoad, CSegment)
"""In the order of ``wk_sim_size``."""
