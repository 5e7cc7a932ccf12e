"""Fakes with behaviour: what tests of the agent run on, held to the same contracts as the real things."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from wattkeeper.model import GpuInfo, GpuReading, GpuUuid
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.units import Milliwatts


@dataclass
class FakeGpu:
    """One GPU: what it is, what it reads, and what is wrong with it."""

    info: GpuInfo
    reading: GpuReading
    baseline_mw: int | None = None
    ours: bool = False
    refuses: bool = False  # setting a limit is not permitted
    ignores: bool = False  # setting a limit succeeds and changes nothing
    lost: bool = False
    cannot_save: bool = False  # the baseline cannot be written
    use_by_pid: dict[int, int] | None = None
    mended: asyncio.Event = field(default_factory=asyncio.Event)
    hangs: bool = False

    def hang(self) -> None:
        """Calls do not return until ``mend``."""
        self.mended.clear()
        self.hangs = True

    def mend(self) -> None:
        """Nothing is wrong any more."""
        self.refuses = self.ignores = self.lost = self.cannot_save = self.hangs = False
        self.mended.set()


class FakeGpus:
    """``GpuReader`` and ``Actuator`` over GPUs in memory. ``writes`` records every limit set."""

    def __init__(self, *infos: GpuInfo) -> None:
        self.gpus = {i.uuid: FakeGpu(i, GpuReading(0.0, 0.0, i.default_mw, i.default_mw)) for i in infos}
        self.writes: list[tuple[str, int]] = []

    async def list_gpus(self, deadline_s: float) -> tuple[GpuInfo, ...]:
        there = [gpu.info for gpu in self.gpus.values() if not gpu.lost]
        return tuple(sorted(there, key=lambda info: info.minor))

    async def read(
        self, gpus: Sequence[GpuUuid], deadline_s: float, shared: Collection[GpuUuid] = ()
    ) -> dict[GpuUuid, GpuReading | DeviceError]:
        answers = await asyncio.gather(*(self._read(gpu, deadline_s, gpu in shared) for gpu in gpus))
        return dict(zip(gpus, answers, strict=True))

    async def _read(self, uuid: GpuUuid, deadline_s: float, shared: bool) -> GpuReading | DeviceError:
        try:
            gpu = await self._reach(uuid, "read", deadline_s)
        except DeviceError as error:
            return error
        return replace(gpu.reading, use_by_pid=gpu.use_by_pid if shared else None)

    def stalled(self, gpu: GpuUuid) -> bool:
        return self.gpus[gpu].hangs

    async def set_limit(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        gpu = await self._reach(uuid, "set_limit", deadline_s)
        if not gpu.info.min_mw <= limit_mw <= gpu.info.max_mw:
            raise DeviceError(Kind.INVALID, uuid, f"{limit_mw} mW is outside of its range")
        self._save(gpu)
        gpu.ours = True
        return self._write(gpu, limit_mw)

    async def claim(self, uuid: str, deadline_s: float) -> int:
        gpu = await self._reach(uuid, "claim", deadline_s)
        baseline_mw = self._save(gpu)
        gpu.ours = True
        return baseline_mw

    async def save_baseline(self, uuid: str, deadline_s: float) -> int:
        return self._save(await self._reach(uuid, "save_baseline", deadline_s))

    async def give_back(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        gpu = await self._reach(uuid, "set_limit", deadline_s)
        read_mw = self._write(gpu, limit_mw)
        gpu.ours = False
        return read_mw

    async def baseline(self, uuid: str, deadline_s: float) -> tuple[int | None, bool]:
        gpu = self.gpus[GpuUuid(uuid)]
        return gpu.baseline_mw, gpu.ours

    async def _reach(self, uuid: str, tried: str, deadline_s: float) -> FakeGpu:
        gpu = self.gpus[GpuUuid(uuid)]
        if gpu.hangs:
            try:
                async with asyncio.timeout(deadline_s):
                    await gpu.mended.wait()
            except TimeoutError:
                raise DeviceError(Kind.TIMEOUT, uuid, f"{tried} did not return in {deadline_s:g} s") from None
        if gpu.lost:
            raise DeviceError(Kind.LOST, uuid, f"cannot {tried}", "the GPU needs a reset")
        return gpu

    def _save(self, gpu: FakeGpu) -> int:
        if gpu.baseline_mw is None:
            if gpu.cannot_save:
                raise DeviceError(Kind.STATE, gpu.info.uuid, "cannot save its baseline")
            gpu.baseline_mw = gpu.reading.requested_mw or 0
        return gpu.baseline_mw

    def _write(self, gpu: FakeGpu, limit_mw: int) -> int:
        uuid = gpu.info.uuid
        if gpu.refuses:
            raise DeviceError(Kind.PERMISSION, uuid, f"cannot set its limit to {limit_mw} mW", "run the agent as root")
        self.writes.append((uuid, limit_mw))
        if gpu.ignores:
            raise DeviceError(Kind.NOT_TAKEN, uuid, f"set {limit_mw} mW, it reads {gpu.reading.requested_mw} mW")
        gpu.reading = replace(gpu.reading, requested_mw=Milliwatts(limit_mw), enforced_mw=Milliwatts(limit_mw))
        return limit_mw
