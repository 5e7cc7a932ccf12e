"""A client that does nothing but make the calls of the agent's tick: every GPU read once a second, and forgotten."""

import time

import pynvml


def main() -> None:
    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    while True:
        for handle in handles:
            pynvml.nvmlDeviceGetFieldValues(handle, [192, 190])
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            pynvml.nvmlDeviceGetPowerUsage(handle)
            pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
            pynvml.nvmlDeviceGetUtilizationRates(handle)
            pynvml.nvmlDeviceGetViolationStatus(handle, pynvml.NVML_PERF_POLICY_POWER)
        time.sleep(1)


if __name__ == "__main__":
    main()
