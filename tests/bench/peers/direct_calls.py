"""The driver's own part: an NVML client that is up already sets and reads back every GPU when told to.

Each line on standard input is a limit in milliwatts; the answer is the nanoseconds that it took. A plain script.
"""

import sys
import time

import pynvml

REQUESTED_LIMIT = 192  # NVML_FI_DEV_POWER_REQUESTED_LIMIT


def main() -> int:
    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    for line in sys.stdin:
        wanted_mw = int(line)
        start = time.monotonic_ns()
        for handle in handles:
            pynvml.nvmlDeviceSetPowerManagementLimit(handle, wanted_mw)
            answer = pynvml.nvmlDeviceGetFieldValues(handle, [REQUESTED_LIMIT])[0]
            if answer.value.uiVal != wanted_mw:
                return 1
        print(time.monotonic_ns() - start, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
