"""Simulated GPUs: a ``libnvidia-ml.so.1`` in C that any NVML client can load, and its controls.

The C sources lie beside this file: state.c (the shared state), physics.c (what a GPU draws), session.c
(handles, faults, latency), exports_*.c (NVML's functions) and controls.c (what this package drives).
"""

from wattkeeper.simulator.library import SimulatorError, find_library
from wattkeeper.simulator.simulation import FAULTS, PROFILES, FaultKind, Gpu, Node, Profile, Simulation, models

__all__ = [
    "FAULTS",
    "PROFILES",
    "FaultKind",
    "Gpu",
    "Node",
    "Profile",
    "Simulation",
    "SimulatorError",
    "find_library",
    "models",
]
