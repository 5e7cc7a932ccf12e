"""A Prolog as sites write it: starts Python, opens NVML, sets the limit of each of the job's GPUs, reads it back."""

import os
import re
import sys

import pynvml

REQUESTED_LIMIT = 192  # NVML_FI_DEV_POWER_REQUESTED_LIMIT


def main() -> int:
    asked = re.search(r"power=(\d+)W", os.environ.get("SLURM_JOB_COMMENT", ""))
    if asked is None:
        return 0
    wanted_mw = int(asked[1]) * 1000
    pynvml.nvmlInit()
    wrong = 0
    for index in os.environ["SLURM_JOB_GPUS"].split(","):
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(index))
        pynvml.nvmlDeviceSetPowerManagementLimit(handle, wanted_mw)
        answer = pynvml.nvmlDeviceGetFieldValues(handle, [REQUESTED_LIMIT])[0]
        wrong += answer.value.uiVal != wanted_mw
    return wrong


if __name__ == "__main__":
    sys.exit(main())
