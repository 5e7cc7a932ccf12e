"""Simulated GPUs: a ``libnvidia-ml.so.1`` in C that any NVML client can load, and its controls.

The C sources lie beside this file: state.c (the shared state), physics.c (what a GPU draws), sensors.c (what a card
tells of it), profiles.c (loads), actions.c (what happens to GPUs, now or later), session.c (handles, faults, latency),
exports_*.c (NVML's functions) and controls.c (what this package drives). In Python: simulation.py drives them, plans.py
and scenario.py say what happens when, traces.py are loads of one's own, models.py and models.yaml the boards.
"""

from wattkeeper.simulator.creation import SENSORS, Sensors
from wattkeeper.simulator.library import SimulatorError, find_library, profiles
from wattkeeper.simulator.models import Model, find_model, parse_selection, shipped_models
from wattkeeper.simulator.plans import Action, EventName, Plan, Target, When
from wattkeeper.simulator.simulation import Simulation, models
from wattkeeper.simulator.traces import Segment, Trace
from wattkeeper.simulator.views import (
    FAULTS,
    GPU_FAULTS,
    LIBRARY_FAULTS,
    PROFILES,
    ClockMode,
    FaultKind,
    Gpu,
    Instance,
    Node,
    Process,
    Profile,
)

__all__ = [
    "FAULTS",
    "GPU_FAULTS",
    "LIBRARY_FAULTS",
    "PROFILES",
    "SENSORS",
    "Action",
    "ClockMode",
    "EventName",
    "FaultKind",
    "Gpu",
    "Instance",
    "Model",
    "Node",
    "Plan",
    "Process",
    "Profile",
    "Segment",
    "Sensors",
    "Simulation",
    "SimulatorError",
    "Target",
    "Trace",
    "When",
    "find_library",
    "find_model",
    "models",
    "parse_selection",
    "profiles",
    "shipped_models",
]
