"""What every ``GpuReader`` promises, by reading alone: fit for a real card in use.

``python -m tests.contract.reading`` holds the card of this machine to it; nothing is ever set.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from functools import cache

from wattkeeper.gpus.nvml import NvmlReader
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.model import GpuInfo, GpuReading
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.privileged.nvml import Nvml
from wattkeeper.protocols import GpuReader
from wattkeeper.system.clock import SystemClock

DEADLINE_S = 10.0
APART_S = 0.3
MOST_W = 5_000


async def check(reader: GpuReader) -> tuple[GpuInfo, ...]:
    """Raises AssertionError for what a reader must not do; gives the GPUs that it was held to."""
    gpus = await reader.list_gpus(DEADLINE_S)
    assert [gpu.minor for gpu in gpus] == sorted({gpu.minor for gpu in gpus})
    assert len({gpu.uuid for gpu in gpus}) == len(gpus)
    for gpu in gpus:
        assert gpu.model
        assert 0 < gpu.min_mw <= gpu.default_mw <= gpu.max_mw < MOST_W * 1000
    first = await _read(reader, gpus)
    await asyncio.sleep(APART_S)
    second = await _read(reader, gpus)
    for gpu, before, after in zip(gpus, first, second, strict=True):
        _check_pair(gpu, before, after)
    assert await reader.read([], DEADLINE_S) == {}
    assert not any(reader.stalled(gpu.uuid) for gpu in gpus)
    return gpus


async def _read(reader: GpuReader, gpus: tuple[GpuInfo, ...]) -> list[GpuReading]:
    answers = await reader.read([gpu.uuid for gpu in gpus], DEADLINE_S)
    assert list(answers) == [gpu.uuid for gpu in gpus]
    readings = []
    for answer in answers.values():
        assert not isinstance(answer, DeviceError), str(answer)
        readings.append(answer)
    return readings


def _check_pair(gpu: GpuInfo, before: GpuReading, after: GpuReading) -> None:
    """Two readings of one GPU, the later second."""
    assert after.at_mono >= before.at_mono
    for reading in (before, after):
        assert reading.requested_mw is None or gpu.min_mw <= reading.requested_mw <= gpu.max_mw
        assert reading.enforced_mw is None or 0 < reading.enforced_mw <= gpu.max_mw
        assert reading.power_mw is None or 0 < reading.power_mw < MOST_W * 1000
        assert reading.temperature_c is None or 0 <= reading.temperature_c < 130
        assert reading.utilization_percent is None or 0 <= reading.utilization_percent <= 100
    if before.energy_mj is not None:
        assert after.energy_mj is not None
        assert 0 <= after.energy_mj - before.energy_mj <= MOST_W * 1000 * (after.at_mono - before.at_mono + 1)
    if before.capped_ns is not None:
        assert after.capped_ns is not None
        assert after.capped_ns >= before.capped_ns


def main() -> int:
    """0: the card keeps the contract, and what it answered is printed; 3: there is none; an error where it does not."""
    reader = NvmlReader(Nvml(), SystemClock(), cache(DeviceThread))
    try:
        gpus = asyncio.run(check(reader))
    except DeviceError as error:
        if error.kind is Kind.NO_DRIVER:
            print(f"no real GPU: {error}", file=sys.stderr)
            return 3
        raise
    print(json.dumps([asdict(gpu) for gpu in gpus]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
