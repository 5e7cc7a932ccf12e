"""An NVML client like any other: prints every GPU it sees as JSON. Run as a plain script, also inside jobs."""

import json
import sys
from typing import Any

import pynvml

REQUESTED_LIMIT = 192  # NVML_FI_DEV_POWER_REQUESTED_LIMIT


def _requested_mw(handle: Any) -> int:
    value = pynvml.nvmlDeviceGetFieldValues(handle, [REQUESTED_LIMIT])[0]
    if value.nvmlReturn == pynvml.NVML_SUCCESS:
        return int(value.value.uiVal)
    return int(pynvml.nvmlDeviceGetPowerManagementLimit(handle))


def view(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    low, high = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
    return {
        "index": index,
        "minor": pynvml.nvmlDeviceGetMinorNumber(handle),
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
        "name": pynvml.nvmlDeviceGetName(handle),
        "requested_w": _requested_mw(handle) / 1000,
        "enforced_w": pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
        "default_w": pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1000,
        "min_w": low / 1000,
        "max_w": high / 1000,
        "energy_j": pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000,
    }


def main() -> int:
    pynvml.nvmlInit()
    print(json.dumps([view(index) for index in range(pynvml.nvmlDeviceGetCount())]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
