"""Older drivers: what a client finds missing, and that the agent's reader lives with it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wattkeeper.simulator import Simulation, SimulatorError, variants
from wattkeeper.simulator.library import find_library

ASK = """
import json, sys
import pynvml
from pynvml import NVMLError

def ask(call, *arguments):
    try:
        answer = call(*arguments)
    except NVMLError as error:
        return type(error).__name__
    return answer.decode() if isinstance(answer, bytes) else answer if isinstance(answer, (int, str)) else "answered"

pynvml.nvmlInit()
gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
fields = pynvml.nvmlDeviceGetFieldValues(gpu, [83, 185, 190, 192])
json.dump({
    "reasons": ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, gpu),
    "temperature": ask(pynvml.nvmlDeviceGetTemperatureV, gpu, pynvml.NVML_TEMPERATURE_GPU),
    "limit": ask(pynvml.nvmlDeviceGetPowerManagementLimit, gpu),
    "processes": ask(pynvml.nvmlDeviceGetComputeRunningProcesses, gpu),
    "driver": ask(pynvml.nvmlSystemGetDriverVersion),
    "nvml": ask(pynvml.nvmlSystemGetNVMLVersion),
    "cuda": ask(pynvml.nvmlSystemGetCudaDriverVersion_v2),
    "fields": [field.nvmlReturn for field in fields],
}, sys.stdout)
"""

READ = """
import asyncio, json, sys
from wattkeeper.gpus.nvml import NvmlReader
from wattkeeper.privileged.nvml import Nvml
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.system.clock import SystemClock

async def read(library):
    nvml, threads = Nvml(library), {}
    reader = NvmlReader(nvml, SystemClock(), lambda name: threads.setdefault(name, DeviceThread(name)))
    (gpu, *_) = await reader.list_gpus(10)
    before = (await reader.read([gpu.uuid], 10))[gpu.uuid]
    nvml.write_limit(gpu.uuid, 400_000)
    after = (await reader.read([gpu.uuid], 10))[gpu.uuid]
    print(json.dumps([gpu.driver_version, before.requested_mw, after.requested_mw, after.enforced_mw,
                      after.power_mw, after.energy_mj, after.capped_ns, after.temperature_c]))
    sys.stdout.flush()

asyncio.run(read(sys.argv[1]))
"""


def answers(state: Path, library: Path, script: str, *arguments: str) -> Any:
    environment = {"PATH": "/usr/bin:/bin", "WATTKEEPER_SIM_STATE": str(state), "LD_LIBRARY_PATH": str(library.parent)}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    Simulation.create(tmp_path / "sim", gpus=1, model="H100").close()
    return tmp_path / "sim"


@pytest.mark.parametrize(
    ("driver", "reasons", "fields"),
    [("515", False, [0, 3, 3, 3]), ("525", False, [0, 3, 3, 3]), ("535", True, [0] * 4), ("550", True, [0] * 4)],
)
def test_what_an_older_driver_lacks_is_missing(state: Path, driver: str, reasons: bool, fields: list[int]) -> None:
    found = answers(state, variants.library_for(driver), ASK)
    assert found["temperature"] == "NVMLError_FunctionNotFound"
    assert (found["reasons"] == "NVMLError_FunctionNotFound") is not reasons
    assert found["limit"] == 700_000
    assert found["processes"] == "answered"
    assert found["fields"] == fields
    assert found["nvml"].endswith(variants.version_of(driver))
    assert found["cuda"] // 1000 == int(found["nvml"].partition(".")[0])


def test_the_newest_driver_lacks_none_of_it(state: Path) -> None:
    found = answers(state, find_library(), ASK)
    assert isinstance(found["reasons"], int)
    assert isinstance(found["temperature"], int)
    assert found["fields"] == [0] * 4


@pytest.mark.parametrize("driver", [*variants.drivers(), None])
def test_the_agents_reader_works_on_every_driver(state: Path, driver: str | None) -> None:
    library = variants.library_for(driver) if driver else find_library()
    version, *limits, power, energy, capped, temperature = answers(state, library, READ, str(library))
    assert limits == [700_000, 400_000, 400_000]
    assert power > 0
    assert energy >= 0
    assert capped == 0
    assert 20 < temperature < 90
    assert version


def test_a_driver_that_there_is_no_library_of_is_an_error() -> None:
    assert variants.drivers() == ("515", "525", "535", "550")
    assert variants.version_of("525") == "525.85.12"
    with pytest.raises(SimulatorError, match=r"no older driver '470' to pass for \(allowed: 515, 525, 535, 550\)"):
        variants.library_for("470")
    with pytest.raises(SimulatorError, match="no older driver"):
        variants.version_of("470")
