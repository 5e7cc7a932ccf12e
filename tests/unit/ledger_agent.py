"""An agent's ledger without the agent: a clock that stands still, a disk that fails, one GPU and its jobs."""

import asyncio
import json
import logging
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from wattkeeper.agent.ledger import LedgerWriter, open_ledger
from wattkeeper.errors import StoreError
from wattkeeper.ledger.memory import MemoryStore
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import Charges, EnergySample, GpuUuid, Holding, JobFacts, JobKey, Sharing, Watermark
from wattkeeper.protocols import Change, JobNote, Kept
from wattkeeper.units import Millijoules

A = GpuUuid("GPU-a")
NOW = 1_800_000_000.0
DAY = 86_400.0
KEEP_S = 30 * DAY


@dataclass
class FakeClock:
    """Stands still until it is told to go on."""

    wall_s: float = NOW
    mono_s: float = 1_000.0

    def wall(self) -> float:
        return self.wall_s

    def mono(self) -> float:
        return self.mono_s

    def boot_id(self) -> str:
        return "boot"

    async def sleep(self, seconds: float) -> None:
        self.go_on(seconds)

    def go_on(self, seconds: float) -> None:
        self.wall_s += seconds
        self.mono_s += seconds


class Disk(MemoryStore):
    """A ledger whose disk can fail before it writes, fail to say that it has written, or hang."""

    def __init__(self) -> None:
        super().__init__()
        self.full = self.forgets_to_answer = False
        self.free = threading.Event()
        self.free.set()
        self.commits = 0

    def commit(self, change: Change) -> None:
        self.free.wait()
        if self.full:
            raise StoreError("state.db: no space left; make room")
        super().commit(change)
        self.commits += 1
        if self.forgets_to_answer:
            self.forgets_to_answer = False
            raise StoreError("state.db: disk I/O error; check the disk")


class Meter:
    """One GPU under job 1, as the agent meters it: each tick is 100 mJ and one second."""

    def __init__(self, writer: LedgerWriter, clock: FakeClock, counter_mj: int = 0) -> None:
        self.writer = writer
        self.clock = clock
        self.counter_mj = counter_mj

    def holding(self, job_id: int = 1) -> Holding:
        return Holding(JobFacts(key(job_id), 1000, "alice", "physics"), A, Sharing.WHOLE, NOW, 0.0)

    def mark(self, *owners: JobKey) -> Watermark:
        sample = EnergySample(A, Millijoules(self.counter_mj), self.clock.wall(), self.clock.mono(), "boot")
        return Watermark(sample, owners)

    async def start(self, job_id: int = 1) -> bool:
        held, marks = (self.holding(job_id),), (self.mark(key(job_id)),)
        return await self.writer.commit(Change("boot", self.clock.wall(), added=held, watermarks=marks))

    async def tick(self, job_id: int = 1, seconds: float = 1.0) -> bool:
        return await self.writer.commit(self._gain(job_id, seconds))

    async def quiet_tick(self, job_id: int = 1, seconds: float = 1.0) -> None:
        await self.writer.charge(self._gain(job_id, seconds))

    async def end(self, job_id: int = 1) -> bool:
        held = self.holding(job_id)
        change = self._gain(job_id, 1.0)
        note = JobNote(held.job, NOW, self.clock.wall())
        marks = tuple(replace(mark, owners=()) for mark in change.watermarks)
        return await self.writer.commit(
            replace(change, removed=(held,), over=(key(job_id),), notes=(note,), watermarks=marks)
        )

    def _gain(self, job_id: int, seconds: float) -> Change:
        self.clock.go_on(seconds)
        self.counter_mj += 100
        at = self.clock.wall()
        charges = Charges(A, {key(job_id): Millijoules(100)}, held_ns=10**9, at=at)
        return Change("boot", at, charges=(charges,), watermarks=(self.mark(key(job_id)),))


def key(job_id: int = 1) -> JobKey:
    return JobKey("lab", job_id, "r0")


class Node:
    """The folder ``state_dir`` of a node, and agents that come and go over it."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.folder = folder
        self.clock = clock
        self.told: list[str] = []

    def begin(self, counter_mj: int = 0) -> tuple[Meter, Kept]:
        writer = open_ledger(self.folder, self.clock, lambda: KEEP_S, self.told.append)
        return Meter(writer, self.clock, counter_mj), writer.kept

    def load(self) -> Kept:
        with closing(SqliteStore(self.folder / "state.db")) as store:
            return store.load()

    def records(self) -> list[tuple[int, int]]:
        """Job and millijoules of each line in the files of records."""
        lines = [line for path in sorted(self.folder.glob("records/*")) for line in path.read_text().splitlines()]
        return [(json.loads(line)["job_id"], json.loads(line)["energy_mj"]) for line in lines]


async def finished(meter: Meter) -> None:
    """The thread has nothing to do any more."""
    while (future := meter.writer._following) is not None and not future.done():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def troubles(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
