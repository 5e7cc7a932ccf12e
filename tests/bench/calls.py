"""What simulated GPUs cost a client: one NVML call through pynvml, and an hour of a node.

`python -m tests.bench.calls FOLDER` is that client, in a process of its own: it measures and says so in JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.node import CAP_W, GPUS, progress
from tests.bench.results import Figure, Row
from wattkeeper.simulator import Simulation
from wattkeeper.units import Milliwatts

CALLS = 20_000
CALL_BOUND_US = 2.0
HOUR_BOUND_S = 2.0
LIMIT_FIELD = 192


def measure(root: Path) -> list[Row]:
    """Both rows. The calls are power, limit, energy and one field, in turn."""
    progress(f"{CALLS} NVML calls of each kind, idle and under a load; an hour of {GPUS} GPUs")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.calls", str(root / "calls")], capture_output=True, text=True, check=True
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return [
        Row(
            "one NVML call on a simulated GPU, through pynvml",
            "none",
            (
                Figure("median, idle", measured["idle"], "us", CALL_BOUND_US),
                Figure("median, training under a cap", measured["training"], "us", CALL_BOUND_US),
                Figure("median of the field alone", measured["field"], "us"),
            ),
            note=f"power, limit, energy and field 192 in turn, {CALLS} of each",
        ),
        Row(
            f"one hour of {GPUS} simulated GPUs, step by step",
            "none",
            (Figure("training under a cap", measured["hour"], "s", HOUR_BOUND_S),),
            note="clock set on by 1 s 3,600 times, power and energy of each GPU read each time",
        ),
    ]


def _medians_us() -> dict[str, float]:
    """Of all calls, and of each kind alone."""
    import pynvml

    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    kinds: dict[str, Callable[[], object]] = {
        "power": lambda: pynvml.nvmlDeviceGetPowerUsage(gpu),
        "limit": lambda: pynvml.nvmlDeviceGetPowerManagementLimit(gpu),
        "energy": lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu),
        "field": lambda: pynvml.nvmlDeviceGetFieldValues(gpu, [LIMIT_FIELD]),
    }
    took: dict[str, list[int]] = {kind: [] for kind in kinds}
    clock = time.perf_counter_ns
    for _ in range(CALLS):
        for kind, call in kinds.items():
            start = clock()
            call()
            took[kind].append(clock() - start)
    took["all"] = [one for times in took.values() for one in times]
    return {kind: statistics.median(times) / 1000 for kind, times in took.items()}


def _hour_s(simulation: Simulation) -> float:
    import pynvml

    gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(GPUS)]
    simulation.set_clock("manual")
    start = time.perf_counter()
    for _ in range(3600):
        simulation.advance(1)
        for gpu in gpus:
            pynvml.nvmlDeviceGetPowerUsage(gpu)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    return time.perf_counter() - start


def main() -> None:
    """The client. The library that the Simulation loads is the one that pynvml then gets."""
    import pynvml

    simulation = Simulation.create(sys.argv[1], model="H100", gpus=GPUS)
    os.environ.update(simulation.env())
    pynvml.nvmlInit()
    idle = _medians_us()
    simulation.load("all", "training")
    simulation.set_limit("all", Milliwatts(CAP_W * 1000))
    time.sleep(1)  # the limit acts, and sensors look back on nothing else
    loaded = _medians_us()
    medians = {"idle": idle["all"], "training": loaded["all"], "field": loaded["field"]}
    print(json.dumps({**medians, "hour": _hour_s(simulation)}))


if __name__ == "__main__":
    main()
