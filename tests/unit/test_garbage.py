"""What no card can say, and drivers were seen to say all the same, is not to be had."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pynvml
import pytest
from tests.unit.simulated import open_reader

from wattkeeper.gpus.nvml import NvmlReader
from wattkeeper.model import GpuReading, GpuUuid
from wattkeeper.simulator import Simulation


@pytest.fixture
def simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    with Simulation.create(tmp_path / "gpus", model="H100", gpus=1) as made:
        monkeypatch.setenv("WATTKEEPER_SIM_STATE", str(made.state))
        yield made


@pytest.fixture
def reader(simulation: Simulation) -> Iterator[NvmlReader]:
    with open_reader() as made:
        yield made


def read(reader: NvmlReader, simulation: Simulation) -> GpuReading:
    """GPU 0, as one that several jobs share."""
    uuid = GpuUuid(simulation.gpu(0).uuid)
    answer = asyncio.run(reader.read([uuid], 10.0, [uuid]))[uuid]
    assert isinstance(answer, GpuReading)
    return answer


Samples = list[pynvml.c_nvmlProcessUtilizationSample_t]


def samples(*use: tuple[int, int, float]) -> Callable[..., Samples]:
    """What the driver answers: the process, its use in percent, and by how many seconds the sample is ahead of us."""
    sample = pynvml.c_nvmlProcessUtilizationSample_t
    made = [sample(pid=pid, timeStamp=int((time.time() + s) * 1e6), smUtil=sm) for pid, sm, s in use]
    return lambda *_: made


@pytest.mark.parametrize(("sm_util", "ahead_s"), [(2_147_483_632, 0), (101, 0), (50, 3600), (50, 2**33)])
def test_a_sample_of_use_that_cannot_be_is_left_out(
    simulation: Simulation, reader: NvmlReader, monkeypatch: pytest.MonkeyPatch, sm_util: int, ahead_s: int
) -> None:
    """Seen with Syllo/nvtop (issue 110) and NVIDIA/DCGM (issue 83): percentages of 2^31 and the like."""

    def used(*use: tuple[int, int, float]) -> Mapping[int, int] | None:
        monkeypatch.setattr(pynvml, "nvmlDeviceGetProcessUtilization", samples(*use))
        return read(reader, simulation).use_by_pid

    assert used((10, sm_util, ahead_s), (11, 60, 0)) == {11: 60}
    assert used((10, sm_util, ahead_s)) is None
    assert used((10, 100, 1)) == {10: 100}  # what was left out does not hide what comes later


@pytest.mark.parametrize("garbage", [2**64 - 1, 2**63, 2**62, 2**60])
def test_a_count_that_no_card_reaches_is_not_to_be_had(
    simulation: Simulation, reader: NvmlReader, monkeypatch: pytest.MonkeyPatch, garbage: int
) -> None:
    """NVML says 2^64 - 1 for what is not available, and no ledger could take it."""
    good = read(reader, simulation)
    assert good.energy_mj is not None
    assert good.capped_ns is not None
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda _: garbage)
    violation = pynvml.c_nvmlViolationTime_t(referenceTime=1, violationTime=garbage)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetViolationStatus", lambda *_: violation)
    answer = read(reader, simulation)
    assert (answer.energy_mj, answer.capped_ns) == (None, None)
    assert answer.power_mw is not None
