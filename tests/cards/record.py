"""``python -m tests.cards.record``: what NVML answers on this machine's GPUs, as JSON. Reads only; sets nothing.

Names, limits, fields and errors, how often power and energy change while nothing is done about it, and how long calls
take. A file of it under tests/cards/ holds the simulator's model of that card to it.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pynvml

WATCH_S = 4.0
POLL_S = 0.002
CALLS = 200

FIELDS = {
    "total energy": pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
    "average power": pynvml.NVML_FI_DEV_POWER_AVERAGE,
    "instant power": pynvml.NVML_FI_DEV_POWER_INSTANT,
    "min limit": pynvml.NVML_FI_DEV_POWER_MIN_LIMIT,
    "max limit": pynvml.NVML_FI_DEV_POWER_MAX_LIMIT,
    "default limit": pynvml.NVML_FI_DEV_POWER_DEFAULT_LIMIT,
    "current limit": pynvml.NVML_FI_DEV_POWER_CURRENT_LIMIT,
    "requested limit": pynvml.NVML_FI_DEV_POWER_REQUESTED_LIMIT,
}

CALLED: dict[str, Callable[[Any], Any]] = {
    "name": pynvml.nvmlDeviceGetName,
    "limit": pynvml.nvmlDeviceGetPowerManagementLimit,
    "enforced limit": pynvml.nvmlDeviceGetEnforcedPowerLimit,
    "default limit": pynvml.nvmlDeviceGetPowerManagementDefaultLimit,
    "range": pynvml.nvmlDeviceGetPowerManagementLimitConstraints,
    "power": pynvml.nvmlDeviceGetPowerUsage,
    "energy": pynvml.nvmlDeviceGetTotalEnergyConsumption,
    "use": lambda handle: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
    "temperature": lambda handle: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
    "held back": lambda handle: (
        pynvml.nvmlDeviceGetViolationStatus(handle, pynvml.NVML_PERF_POLICY_POWER).violationTime
    ),
    "clock": lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
    "highest clock": lambda handle: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM),
    "memory": lambda handle: pynvml.nvmlDeviceGetMemoryInfo(handle).total,
    "MIG": pynvml.nvmlDeviceGetMigMode,
    "persistence": pynvml.nvmlDeviceGetPersistenceMode,
}


Now = Callable[[], float]
Sleep = Callable[[float], None]


def record(now: Now = time.monotonic, sleep: Sleep = time.sleep) -> dict[str, Any]:
    """Everything of every GPU, by the seconds of a clock. Raises pynvml.NVMLError where there is no driver."""
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return {"driver": pynvml.nvmlSystemGetDriverVersion(), "gpus": [_gpu(handle, now, sleep) for handle in handles]}
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: Any, now: Now, sleep: Sleep) -> dict[str, Any]:
    return {
        "answers": {what: _ask(partial(call, handle)) for what, call in CALLED.items()},
        "fields": {what: _field(handle, field) for what, field in FIELDS.items()},
        "update_period_ms": {
            "power": _period_ms(lambda: pynvml.nvmlDeviceGetPowerUsage(handle), now, sleep),
            "energy": _period_ms(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle), now, sleep),
        },
        "median_call_us": {what: _median_us(partial(call, handle)) for what, call in CALLED.items()},
    }


def _ask(call: Callable[[], Any]) -> Any:
    """The answer, or the error's number as ``{"error": 3}``."""
    try:
        return call()
    except pynvml.NVMLError as error:
        return {"error": error.value}


def _field(handle: Any, field: int) -> Any:
    (answer,) = pynvml.nvmlDeviceGetFieldValues(handle, [field])
    if answer.nvmlReturn != pynvml.NVML_SUCCESS:
        return {"error": answer.nvmlReturn}
    wide = answer.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
    return answer.value.ullVal if wide else answer.value.uiVal


def _period_ms(read: Callable[[], int], now: Now, sleep: Sleep) -> float | None:
    """The median time between two changes of a figure; None where it hardly ever changed, or cannot be read."""
    changes: list[float] = []
    try:
        last = read()
        until = now() + WATCH_S
        while (at := now()) < until:
            value = read()
            if value != last:
                changes.append(at)
                last = value
            sleep(POLL_S)
    except pynvml.NVMLError:
        return None
    gaps = [later - earlier for earlier, later in itertools.pairwise(changes)]
    return round(1000 * statistics.median(gaps), 1) if len(gaps) >= 3 else None


def _median_us(call: Callable[[], Any]) -> float:
    took = []
    for _ in range(CALLS):
        start = time.perf_counter()
        _ask(call)
        took.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(took), 1)


def main() -> int:
    try:
        json.dump(record(), sys.stdout, indent=1)
    except pynvml.NVMLError as error:
        print(f"no GPU can be read: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
