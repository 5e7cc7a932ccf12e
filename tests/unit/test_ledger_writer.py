"""Writing to the ledger while its disk fails, hangs, fills, and comes back: no job's total is lost."""

import asyncio
import json
import logging
import os
import resource
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from wattkeeper.agent.ledger import MOST_WAITING, REOPEN_S, LedgerWriter, open_ledger
from wattkeeper.errors import StoreError
from wattkeeper.ledger.memory import MemoryStore
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import Charges, EnergySample, GpuUuid, Holding, JobFacts, JobKey, Sharing, Watermark
from wattkeeper.protocols import Change, JobNote, Kept
from wattkeeper.snapshot import AdminHold
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


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def meter(disk: Disk, clock: FakeClock) -> Meter:
    return Meter(LedgerWriter(disk, clock=clock), clock)


class Node:
    """The folder ``state_dir`` of a node, and agents that come and go over it."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.folder = folder
        self.clock = clock
        self.told: list[str] = []

    def begin(self, counter_mj: int = 0) -> tuple[Meter, Kept]:
        writer, kept = open_ledger(self.folder, self.clock, lambda: KEEP_S, self.told.append)
        return Meter(writer, self.clock, counter_mj), kept

    def load(self) -> Kept:
        with closing(SqliteStore(self.folder / "state.db")) as store:
            return store.load()

    def records(self) -> list[tuple[int, int]]:
        """Job and millijoules of each line in the files of records."""
        lines = [line for path in sorted(self.folder.glob("records/*")) for line in path.read_text().splitlines()]
        return [(json.loads(line)["job_id"], json.loads(line)["energy_mj"]) for line in lines]


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock) -> Node:
    return Node(tmp_path / "state", clock)


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """The disk is full, for a process that may not be root: no file of ours can grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def troubles(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_full_disk_is_told_once_and_nothing_is_lost(
    meter: Meter, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        await meter.start()
        disk.full = True
        assert [await meter.tick() for _ in range(3)] == [False] * 3
        assert meter.writer.alarm == (
            "the ledger cannot be written, going on in memory: state.db: no space left; make room"
        )
        disk.full = False
        assert await meter.tick()
        assert meter.writer.alarm is None

    asyncio.run(scene())
    assert disk.load().usage[key(), A].energy_mj == 400
    assert len(troubles(caplog)) == 2
    assert "no space left" in troubles(caplog)[0]
    assert "nothing was lost" in troubles(caplog)[1]


def test_a_disk_on_the_brink_is_told_of_every_ten_minutes(
    meter: Meter, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        await meter.start()
        for number in range(120):
            disk.full = number % 2 == 0
            assert await meter.tick(seconds=10.0) is not disk.full

    asyncio.run(scene())
    assert len([text for text in troubles(caplog) if "no space left" in text]) == 2
    assert disk.load().usage[key(), A].energy_mj == 12_000


def test_days_of_a_full_disk_hold_little_memory_and_lose_nothing(meter: Meter, disk: Disk) -> None:
    async def scene() -> None:
        disk.full = True
        await meter.start()
        for _ in range(5_000):
            await meter.tick(seconds=60.0)
        await meter.end()
        assert len(meter.writer._waiting) <= MOST_WAITING
        disk.full = False
        assert await meter.start(2)

    asyncio.run(scene())
    kept = disk.load()
    assert (kept.usage[key(), A].energy_mj, kept.usage[key(), A].held_ns) == (500_100, 5_001 * 10**9)
    assert kept.accounts_mj["physics", ""] == 500_100
    assert kept.over == {key()}
    assert [h.job.key for h in kept.holdings] == [key(2)]
    assert kept.watermarks[A].sample.energy_mj == meter.counter_mj


def test_an_answer_that_got_lost_counts_nothing_twice(meter: Meter, disk: Disk) -> None:
    async def scene() -> None:
        await meter.start()
        disk.forgets_to_answer = True
        assert not await meter.tick()
        assert await meter.tick()

    asyncio.run(scene())
    assert disk.load().usage[key(), A].energy_mj == 200


def test_a_disk_that_hangs_makes_one_caller_wait_and_no_more(
    meter: Meter, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattkeeper.agent.ledger.COMMIT_DEADLINE_S", 0.1)

    async def scene() -> None:
        await meter.start()
        disk.free.clear()
        assert not await meter.tick()
        assert "commit did not return in 0.1 s" in str(meter.writer.trouble)
        begun = asyncio.get_running_loop().time()
        assert [await meter.tick() for _ in range(100)] == [False] * 100
        assert asyncio.get_running_loop().time() - begun < 0.1 * 100 / 2  # not a deadline each
        disk.free.set()
        while meter.writer._thread.stalled:  # noqa: ASYNC110 - nothing tells when a thread is free
            await asyncio.sleep(0.01)
        assert await meter.tick()

    asyncio.run(scene())
    assert disk.load().usage[key(), A].energy_mj == 102 * 100


def test_closing_writes_what_waits(meter: Meter, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "close", lambda: None)

    async def scene() -> None:
        await meter.start()
        disk.full = True
        await meter.tick()
        disk.full = False
        meter.writer.close()

    asyncio.run(scene())
    assert disk.load().usage[key(), A].energy_mj == 100


def test_closing_says_what_is_lost(meter: Meter, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        await meter.start()
        disk.full = True
        for _ in range(50):
            await meter.tick()
        meter.writer.close()

    asyncio.run(scene())
    assert "50 changes with 5 J of 1 jobs are lost with this process: state.db: no space left" in caplog.text


# With files


def test_a_disk_that_fills_loses_no_jobs_total_and_no_record(node: Node) -> None:
    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        await meter.tick()
        size = (node.folder / "state.db-wal").stat().st_size
        with no_file_beyond(size):
            assert not await meter.tick()
            assert not await meter.end()
            assert not await meter.start(2)
            assert not await meter.tick(2)
        assert await meter.tick(2)
        meter.writer.close()

    asyncio.run(scene())
    kept = node.load()
    assert {job.job_id: usage.energy_mj for (job, _), usage in kept.usage.items()} == {1: 300, 2: 200}
    assert node.records() == [(1, 300)]


def test_records_that_do_not_fit_are_written_when_there_is_room(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        await meter.tick()
        (node.folder / "records").write_text("in the way")
        assert await meter.end()
        await finished(meter)
        assert "end-of-job records wait to be written: " in str(meter.writer.alarm)
        assert await meter.start(2)
        assert await meter.end(2)
        await finished(meter)
        assert len([text for text in troubles(caplog) if "records wait" in text]) == 1
        (node.folder / "records").unlink()
        node.clock.go_on(60.0)
        await meter.start(3)
        await finished(meter)
        assert meter.writer.alarm is None
        assert node.records() == [(1, 200), (2, 100)]
        meter.writer.close()

    asyncio.run(scene())


async def finished(meter: Meter) -> None:
    """The thread has nothing to do any more."""
    while (future := meter.writer._following) is not None and not future.done():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


def test_the_record_of_a_job_stands_in_its_file_soon_after_its_end(node: Node) -> None:
    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        await meter.tick()
        assert await meter.end()
        await finished(meter)
        assert node.records() == [(1, 200)]
        assert [json.loads(line)["job_id"] for line in node.told] == [1]
        await meter.tick(9)
        await finished(meter)
        assert len(node.told) == 1
        meter.writer.close()

    asyncio.run(scene())


def test_records_that_a_crash_left_are_written_at_the_next_start(node: Node) -> None:
    ended = JobNote(JobFacts(key(), 1000), NOW, NOW + 1)
    with closing(SqliteStore(node.folder / "state.db")) as store:
        store.commit(Change("boot", NOW, notes=(ended,), charges=(Charges(A, {key(): Millijoules(5)}),)))

    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start(2)
        await finished(meter)
        assert node.records() == [(1, 5)]
        meter.writer.close()

    asyncio.run(scene())


def test_what_is_old_is_forgotten_at_start_and_once_a_day(node: Node) -> None:
    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        await meter.end()
        await settled(meter)
        node.clock.go_on(KEEP_S - DAY)
        await settled(meter)
        assert node.records() == [(1, 100)]
        node.clock.go_on(2 * DAY)
        await settled(meter)
        assert node.records() == []
        assert jobs() == []
        meter.writer.close()

    async def settled(meter: Meter) -> None:
        for _ in range(4):  # a batch of records, a look for more, pruning
            await meter.tick(9)
            await finished(meter)

    def jobs() -> list[tuple[int]]:
        with closing(sqlite3.connect(node.folder / "state.db")) as db:
            return db.execute("SELECT job_id FROM jobs").fetchall()

    asyncio.run(scene())


def test_a_ledger_that_cannot_be_opened_is_taken_up_when_it_can(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.folder.write_text("in the way")  # a folder that cannot be written would not stop root

    async def scene() -> None:
        meter, kept = node.begin()
        assert kept == Kept()
        assert "cannot open the ledger" in str(meter.writer.alarm)
        await meter.start()
        assert [await meter.tick() for _ in range(3)] == [False] * 3
        node.folder.unlink()
        assert not await meter.tick()  # it is not looked at at every tick
        assert await meter.tick(seconds=REOPEN_S)
        assert meter.writer.alarm is None
        await meter.end()
        meter.writer.close()

    asyncio.run(scene())
    assert node.load().accounts_mj == {("physics", ""): 600}
    assert node.records() == [(1, 600)]
    assert len([text for text in troubles(caplog) if "going on in memory" in text]) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in every folder")
def test_a_folder_that_may_not_be_written_is_told_and_taken_up_when_it_may(node: Node) -> None:
    node.folder.mkdir(mode=0o500)

    async def scene() -> None:
        meter, _ = node.begin()
        assert "let the agent's user own its folder" in str(meter.writer.alarm)
        await meter.start()
        await meter.tick()
        node.folder.chmod(0o700)
        assert await meter.tick(seconds=REOPEN_S)
        meter.writer.close()

    asyncio.run(scene())
    assert node.load().usage[key(), A].energy_mj == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    where = tmp_path / "small"
    where.mkdir()
    if os.geteuid() != 0 or subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", where]).returncode:
        pytest.skip("mounting a small file system takes root")
    yield where
    subprocess.run(["/bin/umount", "--lazy", where], check=True)


def fill(where: Path) -> Path:
    """Take all the room there is."""
    ballast = where / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return ballast


def bulky(job_id: int) -> Change:
    """A note of a job with a long comment."""
    return Change("boot", NOW, notes=(JobNote(JobFacts(key(job_id), 1000, comment="x" * 4096), NOW),))


def test_a_file_system_that_fills_mid_run_loses_no_jobs_total_and_no_record(small_disk: Path, clock: FakeClock) -> None:
    node = Node(small_disk / "state", clock)

    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        await meter.tick()
        ballast = fill(small_disk)
        assert all([await meter.tick() for _ in range(100)])  # what the ledger holds already has its room
        written = [await meter.writer.commit(bulky(number)) for number in range(100, 130)]
        assert not written[-1]
        assert not await meter.tick()
        assert not await meter.end()
        ballast.unlink()
        assert await meter.start(2), meter.writer.alarm
        await finished(meter)
        assert await meter.end(2)
        meter.writer.close()

    asyncio.run(scene())
    assert {job.job_id: usage.energy_mj for (job, _), usage in node.load().usage.items()} == {1: 10_300, 2: 100}
    assert node.records() == [(1, 10_300), (2, 100)]
    with closing(sqlite3.connect(node.folder / "state.db")) as db:
        assert db.execute("SELECT count(*) FROM jobs").fetchone() == (32,)


def test_a_file_system_that_is_full_at_start_is_taken_up_when_there_is_room(small_disk: Path, clock: FakeClock) -> None:
    node = Node(small_disk / "state", clock)
    ballast = fill(small_disk)

    async def scene() -> None:
        meter, _ = node.begin()
        assert "make room on its disk" in str(meter.writer.alarm)
        await meter.start()
        assert not await meter.tick(seconds=REOPEN_S)  # still no room
        ballast.unlink()
        assert await meter.tick(seconds=REOPEN_S)
        await meter.end()
        meter.writer.close()

    asyncio.run(scene())
    assert node.records() == [(1, 300)]


def test_the_agents_holdings_win_over_those_of_a_ledger_that_is_taken_up(node: Node) -> None:
    """Job 7 ran when the ledger was last written, at 1,000 mJ; the agent came back to job 1, at 5,000 mJ."""

    async def before() -> None:
        meter, _ = node.begin(900)
        await meter.start(7)
        await meter.tick(7)
        held = {A: AdminHold("fan", NOW, None)}
        await meter.writer.commit(Change("boot", node.clock.wall(), holds=held))
        meter.writer.close()

    async def after() -> None:
        away = node.folder.rename(node.folder.with_name("away"))
        node.folder.write_text("in the way")
        node.clock.go_on(1_000.0)
        meter, _ = node.begin(5_000)
        await meter.start()
        await meter.tick()
        node.folder.unlink()
        away.rename(node.folder)
        assert await meter.tick(seconds=REOPEN_S)
        meter.writer.close()

    asyncio.run(before())
    asyncio.run(after())
    kept = node.load()
    assert [h.job.key for h in kept.holdings] == [key(1)]
    assert kept.over == {key(7)}
    assert {job.job_id: usage.energy_mj for (job, _), usage in kept.usage.items()} == {7: 100, 1: 200}
    assert kept.unattributed_mj == {A: 4_000}  # all that the counter gained has an owner or is known to have none
    assert kept.watermarks[A].sample.energy_mj == 5_200
    assert kept.holds == {}
    assert node.records() == [(7, 100)]


def test_a_file_that_is_damaged_while_the_agent_runs_is_replaced_with_all_that_is_known(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        await meter.tick()
        for path in node.folder.glob("state.db*"):
            path.write_bytes(b"damaged " * 4096)
        assert not await meter.tick()
        assert not await meter.tick()
        assert await meter.tick(seconds=REOPEN_S)
        meter.writer.close()

    asyncio.run(scene())
    kept = node.load()
    assert [h.job.key for h in kept.holdings] == [key()]
    assert kept.usage[key(), A].energy_mj == 300
    assert kept.watermarks[A].sample.energy_mj == 400
    assert list(node.folder.glob("state.db.corrupt-*"))
    assert "set aside as" in caplog.text
