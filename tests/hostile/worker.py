"""`python -m tests.hostile.worker LIBRARY FOLDER HEADER`: meets simulated GPUs in ways nobody should.

It reads one JSON document a line and answers each with one. It is run under the compiler's sanitizers, and whatever
they find, or a crash, ends it: see ``tests.hostile.host``.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.hostile.bases import BASES, make_base
from tests.hostile.calls import Calls, Declaration
from tests.hostile.controls import every_control
from wattkeeper.simulator import library as simulator_library
from wattkeeper.simulator.structures import LIBRARY, CAction, CNode, Fault, Kind

_BLOCKING = (Fault.HANG, Fault.SLOW)
_READS = (
    *("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetEnforcedPowerLimit"),
    *("nvmlDeviceGetFieldValues", "nvmlDeviceGetTemperature", "nvmlDeviceGetUtilizationRates"),
    *("nvmlDeviceGetClockInfo", "nvmlDeviceGetViolationStatus", "nvmlDeviceGetSamples", "nvmlDeviceGetName"),
    *("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetProcessUtilization", "nvmlDeviceGetMemoryInfo"),
    *("nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetMigMode", "nvmlDeviceSetPersistenceMode"),
    *("nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceSetPowerManagementLimit"),
)


class Worker:
    """One sanitized library, one state folder, and the bases that damage starts from."""

    def __init__(self, library: Path, folder: Path, functions: list[Declaration]) -> None:
        self._library = simulator_library.load_library(library)
        simulator_library.find_library = lambda: library
        self._folder = folder
        self._all = Calls(self._library, functions)
        self._some = Calls(self._library, [one for one in functions if one.name in _READS])
        self._bases = {name: make_base(name, folder) for name in BASES}
        os.environ["WATTKEEPER_SIM_STATE"] = str(folder)

    def sizes(self) -> dict[str, int]:
        """How large each base's file is."""
        return {name: len(content) for name, content in self._bases.items()}

    def exercise(self) -> int:
        """All functions and all controls on a good state; answers how many calls that were."""
        (self._folder / "state").write_bytes(self._bases["busy"])
        count = self._all.every([None, 1, 2**64 - 1], thorough=True)  # before anybody has initialised
        self._library.nvmlInit_v2()
        handles = self._all.handles()
        count += self._all.every([handles[0], handles[1], handles[-1], None], thorough=True)
        count += self._all.every(handles, thorough=False)
        self._all.wait(handles[0])
        for sim, what in every_control(self._library, self._folder):
            count += self._look(sim, what)
        self._library.nvmlShutdown()
        return count

    def damaged(self, base: str, edits: list[tuple[int, str]], size: int | None) -> str:
        """Meets a damaged file; answers what became of it."""
        content = bytearray(self._bases[base])
        for offset, replaced in edits:
            new, place = bytes.fromhex(replaced), offset % len(content)
            content[place : place + len(new)] = new
        if size is not None:
            content = content[:size].ljust(size, b"\xa5")
        (self._folder / "state").write_bytes(content)
        sim = ctypes.c_void_p()
        code = self._library.wk_sim_open(os.fsencode(self._folder), ctypes.byref(sim))
        if code == 0:
            node = CNode()
            code = self._library.wk_sim_read(sim, ctypes.byref(node))
            if code == 0:
                self._take_out_waits(sim, node)
            self._library.wk_sim_act(sim, CAction(gpu=0, kind=Kind.SET_LIMIT, value=300_000))
            self._library.wk_sim_act(sim, CAction(gpu=0, kind=Kind.START_LOAD, which=6, level_bp=9_000, value=60_000))
            self._library.wk_sim_advance(sim, 10**9)
            self._library.wk_sim_read(sim, ctypes.byref(node))
            self._library.wk_sim_close(sim)
        if self._library.nvmlInit_v2() == 0:
            self._some.every(self._some.handles()[:12], thorough=False)
            self._library.nvmlShutdown()
        return "read" if code == 0 else f"errno {code}"

    def break_out(self) -> None:
        """Hands over less room than it says, so that the host can be seen to notice."""
        self._library.nvmlInit_v2()
        device = ctypes.c_void_p(self._all.handles()[0])
        self._library.nvmlDeviceGetUUID(device, ctypes.create_string_buffer(32), 96)

    def _take_out_waits(self, sim: ctypes.c_void_p, node: CNode) -> None:
        """A GPU that hangs, hangs: what is looked for is a call that does so by itself."""
        waits = [action for action in node.actions[: node.action_count] if action.kind == Kind.BREAK]
        if any(action.which in _BLOCKING for action in waits):
            self._library.wk_sim_forget_plans(sim)
        gpus = [(minor, node.gpus[minor].faults) for minor in range(node.gpu_count)]
        for minor, faults in (*gpus, (LIBRARY, node.faults)):
            for fault, on in ((Fault.HANG, faults.hang), (Fault.SLOW, faults.slow_us)):
                if on:
                    self._library.wk_sim_act(sim, CAction(gpu=minor, kind=Kind.MEND, which=fault))

    def _look(self, sim: ctypes.c_void_p, what: str) -> int:
        """Reads everything, for whatever a control answers, it leaves a state that can be read."""
        node = CNode()
        code = self._library.wk_sim_read(sim, ctypes.byref(node))
        if code != 0:
            raise AssertionError(f"after {what} the state answers errno {code}")
        handles = self._some.handles()
        if not handles:  # the driver was reloaded, or no call gets through
            self._library.nvmlShutdown()
            self._library.nvmlInit_v2()
        return self._some.every(self._some.handles()[:4], thorough=False)


def main() -> None:
    library, folder, functions = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
    worker = Worker(library, folder, [Declaration(name, tuple(takes)) for name, takes in functions])
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        answer = getattr(worker, asked.pop("do"))(**asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
