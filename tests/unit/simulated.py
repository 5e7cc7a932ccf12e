"""A process of its own that meets simulated GPUs through the real pynvml."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from wattkeeper.gpus.nvml import NvmlReader
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.privileged.nvml import Nvml
from wattkeeper.simulator import Simulation
from wattkeeper.simulator.library import find_library
from wattkeeper.system.clock import SystemClock

PRELUDE = """
import json, os, sys, threading, time
import pynvml as n

def tried(function, *arguments):
    try:
        return function(*arguments)
    except n.NVMLError as error:
        return error.value

def answer(value):
    print(json.dumps(value), flush=True)

def gpu(index):
    return n.nvmlDeviceGetHandleByIndex(index)

def become(user):
    # Once the library is loaded: the interpreter's and the library's files may be out of that user's reach.
    n.nvmlInit()
    n.nvmlShutdown()
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    n.nvmlInit()

def field(handle, number):
    found = n.nvmlDeviceGetFieldValues(handle, [number])[0]
    return found.nvmlReturn or found.value.uiVal
"""

NO_PERMISSION, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 4, 2, 3, 6
UNINITIALIZED, DRIVER_NOT_LOADED, GPU_IS_LOST, UNKNOWN, VERSION_MISMATCH = 1, 9, 15, 999, 25


def client(simulation: Simulation, code: str, *, user: int | None = None, init: bool = True) -> Any:
    """What ``code`` answers when it runs against these GPUs."""
    start = f"become({user})\n" if user else "n.nvmlInit()\n" if init else ""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + start + code],
        env={**os.environ, **simulation.env()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def open_reader() -> Iterator[NvmlReader]:
    """The agent's own reader, in this process: of the GPUs that WATTKEEPER_SIM_STATE names."""
    nvml = Nvml(str(find_library()))
    try:
        yield NvmlReader(nvml, SystemClock(), cache(DeviceThread))
    finally:
        nvml.close()
