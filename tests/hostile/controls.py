"""Every control of the simulator, with values that it takes and values that it does not."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from wattkeeper.simulator.structures import (
    ALL,
    LIBRARY,
    NEVER,
    CAction,
    CInstance,
    CLoad,
    CProcess,
    CSegment,
    Event,
    Fault,
    Kind,
)

_GPUS = (0, 1, ALL, LIBRARY, 7, 2**31)
_VALUES = (0, 1, 300_000, 2**31, 2**32, 2**62, -1, -(2**63), 2**63 - 1)
_MOMENTS = (0, 10**6, 10**13, 2**61, 2**62, NEVER)


def every_control(library: ctypes.CDLL, folder: Path) -> Iterator[tuple[ctypes.c_void_p, str]]:
    """Does one thing after another to the state, and hands it back to be looked at after each."""
    sim = ctypes.c_void_p()
    assert library.wk_sim_open(os.fsencode(folder), ctypes.byref(sim)) == 0
    try:
        yield from ((sim, what) for what in _acts(library, sim))
        yield from ((sim, what) for what in _faults(library, sim))
        yield from ((sim, what) for what in _loads(library, sim))
        yield from ((sim, what) for what in _parts(library, sim))
        yield from ((sim, what) for what in _times(library, sim))
    finally:
        library.wk_sim_close(sim)


def _acts(library: ctypes.CDLL, sim: ctypes.c_void_p) -> Iterator[str]:
    for kind in (*Kind, len(Kind), 2**32 - 1):
        for gpu in _GPUS:
            for value in _VALUES:
                waits = kind == Kind.BREAK and value in (0, 300_000, 2**31)
                which = Fault.IGNORED if waits else gpu % 17
                library.wk_sim_act(sim, CAction(gpu=gpu, kind=kind, which=which, level_bp=9_000, value=value))
                if kind == Kind.BREAK:
                    library.wk_sim_act(sim, CAction(gpu=ALL, kind=Kind.MEND, which=ALL))
                    library.wk_sim_act(sim, CAction(gpu=LIBRARY, kind=Kind.MEND, which=ALL))
        yield f"kind {kind}"
        library.wk_sim_act(sim, CAction(gpu=0, kind=Kind.SET_LATENCY, value=0))
    for moment in _MOMENTS:
        for every in (0, 1, 10**6, 10**9, 2**61, 2**63):
            for event in (*Event, 9):
                planned = CAction(
                    *(moment, every, moment, event, every % 3, 0, Kind.JUMP_COUNTER, 0, 0, 10**18 - every % 7)
                )
                library.wk_sim_act(sim, planned)
        yield f"at {moment}"
    library.wk_sim_advance(sim, 10**11)
    yield "advanced"
    library.wk_sim_forget_plans(sim)
    yield "forgotten"


def _faults(library: ctypes.CDLL, sim: ctypes.c_void_p) -> Iterator[str]:
    for gpu in (0, ALL, LIBRARY):
        for fault in (*Fault, len(Fault), ALL):
            value = fault in (Fault.HANG, Fault.SLOW, Fault.OOB)
            library.wk_sim_act(sim, CAction(gpu=gpu, kind=Kind.BREAK, which=fault, value=value))
            yield f"fault {fault} of {gpu}"
            library.wk_sim_act(sim, CAction(gpu=gpu, kind=Kind.MEND, which=fault))
        library.wk_sim_act(sim, CAction(gpu=gpu, kind=Kind.MEND, which=ALL))
        yield f"mended {gpu}"


def _loads(library: ctypes.CDLL, sim: ctypes.c_void_p) -> Iterator[str]:
    for limit_mw in (1, 60_000, 250_000):
        library.wk_sim_act(sim, CAction(gpu=0, kind=Kind.BREAK, which=Fault.OOB, value=limit_mw))
        for profile in range(12):
            for level in (0, 1, 10_000, 10_001, 2**32 - 1):
                for work_ms in (0, 1, 10**6, 2**43, 2**63 - 1):
                    started = CAction(gpu=0, kind=Kind.START_LOAD, which=profile, level_bp=level, value=work_ms)
                    library.wk_sim_act(sim, started)
            library.wk_sim_advance(sim, 7 * 10**8)
            yield f"profile {profile}"
    library.wk_sim_act(sim, CAction(gpu=0, kind=Kind.BREAK, which=Fault.OOB, value=1))
    for duration_us in (0, 999, 1_000, 300_000, 2**32 - 1):
        for level in (0, 1, 10_000, 10_001, 65_535):
            for count in (0, 1, 2, 1024, 1025, 2**32 - 1):
                segments = (CSegment * 1025)(*[CSegment(duration_us, level, level)] * 1025)
                for once, goal_ns in ((0, 0), (1, 0), (0, 10**10), (1, 2**64 - 1)):
                    load = CLoad(b"own", NEVER, NEVER, goal_ns, once, count)
                    library.wk_sim_set_load(sim, 0, load, segments)
                if count <= 1024:
                    library.wk_sim_advance(sim, 10**8)
                    yield f"{count} segments of {duration_us}, {level}"
    library.wk_sim_set_load(sim, 0, CLoad(b"x" * 24, 0, 0, 0, 0, 1), (CSegment * 1)(CSegment(1_000, 1, 1)))
    library.wk_sim_set_load(sim, 99, CLoad(b"own", 0, 0, 0, 0, 1), (CSegment * 1)(CSegment(1_000, 1, 1)))
    yield "names"
    library.wk_sim_act(sim, CAction(gpu=0, kind=Kind.MEND, which=Fault.OOB))


def _parts(library: ctypes.CDLL, sim: ctypes.c_void_p) -> Iterator[str]:
    for gpu in (0, 1, 99):
        for count in (0, 1, 2, 7, 8, 2**32 - 1):
            for slices in (0, 1, 3, 2**31, 2**32 - 1):
                instances = (CInstance * 8)(*[CInstance(b"u", slices, slices % 5000)] * 8)
                library.wk_sim_set_instances(sim, gpu, instances, count)
            for instance in (0, 1, 6, 2**31, ALL):
                processes = (CProcess * 9)(*[CProcess(2**32 - 1, 1, instance % 10_002, 2**32 - 1, instance)] * 9)
                library.wk_sim_set_processes(sim, gpu, processes, count)
            yield f"{count} parts of {gpu}"
    library.wk_sim_set_instances(sim, 1, None, 0)


def _times(library: ctypes.CDLL, sim: ctypes.c_void_p) -> Iterator[str]:
    for mode in (0, 1, 2, 2**32 - 1, 1):
        library.wk_sim_set_clock_mode(sim, mode)
        for nanoseconds in (0, 1, 10**6, 10**15, 2**60, 2**61, 2**63, 2**64 - 1):
            library.wk_sim_advance(sim, nanoseconds)
            yield f"clock {mode}, {nanoseconds} ns on"
    for boot_id in (b"", b"x" * 39, b"x" * 4_000, b"\xff\x01", b"an earlier boot"):
        library.wk_sim_set_boot_id(sim, boot_id)
        yield f"boot {boot_id[:9]!r}"
