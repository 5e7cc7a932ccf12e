"""`python -m tests.hostile.hammer FOLDER SEED USER FLOOR...`: one of several that are at the same GPUs at once.

Until its input ends it reads all there is and, as root, changes limits, loads and faults; every round it says so in
one line. It exits 3 where something read is not what anybody wrote, or where energy (not below FLOOR, in mJ, by NVML's
index) goes back. With a USER it gives up being root first.
"""

import os
import random
import select
import sys
from collections.abc import Sequence

import pynvml

from wattkeeper.simulator import Simulation
from wattkeeper.units import Milliwatts

LIMITS_MW = (300_000, 412_345, 555_555, 700_000)
REFUSED = (pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_IN_USE)


class Hammer:
    def __init__(self, seed: int, floor_mj: Sequence[int], simulation: Simulation | None) -> None:
        self._chance = random.Random(seed)  # noqa: S311
        self._simulation = simulation
        self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(len(floor_mj))]
        self._uuids = [pynvml.nvmlDeviceGetUUID(gpu) for gpu in self._gpus]
        self._energy_mj = list(floor_mj)
        if len(set(self._uuids)) != len(self._gpus):
            raise AssertionError(f"UUIDs {self._uuids}")

    def round(self) -> None:
        for index in range(len(self._gpus)):
            self._read(index)
        if self._simulation is not None:
            self._change(self._simulation)
        else:
            self._try_to_change()

    def _read(self, index: int) -> None:
        gpu = self._gpus[index]
        if (uuid := pynvml.nvmlDeviceGetUUID(gpu)) != self._uuids[index]:
            raise AssertionError(f"GPU {index} was {self._uuids[index]} and is {uuid}")
        energy_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
        if energy_mj < self._energy_mj[index]:
            raise AssertionError(f"GPU {index}: energy {energy_mj} after {self._energy_mj[index]}")
        self._energy_mj[index] = energy_mj
        requested_mw = pynvml.nvmlDeviceGetPowerManagementLimit(gpu)
        if requested_mw not in LIMITS_MW:
            raise AssertionError(f"GPU {index}: a limit of {requested_mw} that nobody wrote")
        enforced = pynvml.nvmlDeviceGetFieldValues(gpu, [190])[0]
        if enforced.nvmlReturn or enforced.value.uiVal not in (*LIMITS_MW, 250_000):
            raise AssertionError(f"GPU {index}: {enforced.value.uiVal} enforced, which nobody wrote")
        power_mw = pynvml.nvmlDeviceGetPowerUsage(gpu)
        celsius = pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU)
        if not (0 < power_mw < 1_200_000 and 10 < celsius < 120):
            raise AssertionError(f"GPU {index}: {power_mw} mW, {celsius} degrees")
        pynvml.nvmlDeviceGetUtilizationRates(gpu)
        pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)

    def _change(self, simulation: Simulation) -> None:
        chance = self._chance
        minor = chance.randrange(len(self._gpus))
        what = chance.randrange(5)
        if what <= 1:
            try:
                pynvml.nvmlDeviceSetPowerManagementLimit(self._gpus[minor], chance.choice(LIMITS_MW))
            except pynvml.NVMLError as error:
                if error.value not in REFUSED:
                    raise
        elif what == 2:
            simulation.load(minor, chance.choice(["training", "bert", "idle", "steady"]))
        elif what == 3:
            simulation.fault(minor, *chance.choice([("ignored",), ("no-permission",), ("oob", 250_000)]))  # type: ignore[arg-type]
        else:
            simulation.clear_fault(minor)
            simulation.set_limit(minor, Milliwatts(chance.choice(LIMITS_MW)))

    def _try_to_change(self) -> None:
        try:
            pynvml.nvmlDeviceSetPowerManagementLimit(self._gpus[0], 600_000)
        except pynvml.NVMLError as error:
            if error.value not in REFUSED:
                raise
        else:
            raise AssertionError("a user who may not write has set a limit, or was told so")


def main() -> int:
    folder, seed, user, *floor_mj = sys.argv[1:]
    pynvml.nvmlInit()
    if int(user):  # once all is imported: the interpreter's own files may be out of that user's reach
        pynvml.nvmlShutdown()
        os.setgroups([])
        os.setgid(int(user))
        os.setuid(int(user))
        pynvml.nvmlInit()
    simulation = None if int(user) else Simulation.open(folder)
    hammer = Hammer(int(seed), [int(floor) for floor in floor_mj], simulation)
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            hammer.round()
        except AssertionError as error:
            print(f"WRONG {error}", flush=True)
            return 3
        print("round", flush=True)
    pynvml.nvmlShutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
