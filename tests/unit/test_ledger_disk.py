"""The ledger and its records on a disk that fills, is not there, comes back: no job's total is lost, no record."""

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.ledger_agent import DAY, KEEP_S, NOW, A, FakeClock, Meter, Node, finished, key, troubles

from wattkeeper.agent.ledger import REOPEN_S
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import Charges, JobFacts
from wattkeeper.protocols import Change, JobNote, Kept
from wattkeeper.snapshot import AdminHold
from wattkeeper.units import Millijoules


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


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
        assert kept == Kept(known=False)
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


@pytest.mark.parametrize("field", ["jobs_mj", "capped_ns"])
def test_what_no_ledger_can_hold_costs_that_one_interval(
    node: Node, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and never tried again: what comes after it, and the job's record, are written."""
    absurd = {"jobs_mj": {key(1): Millijoules(2**63)}, "capped_ns": 2**63}[field]

    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        bad = meter._gain(1, 1.0)
        charge = replace(bad.charges[0], **{field: absurd})  # type: ignore[arg-type]
        assert await meter.writer.commit(replace(bad, charges=(charge,)))
        assert meter.writer.alarm is None
        await meter.tick()
        await meter.end()
        meter.writer.close()

    asyncio.run(scene())
    assert node.load().accounts_mj == {("physics", ""): 200}
    assert node.records() == [(1, 200)]
    (told,) = troubles(caplog)
    assert "of 1 jobs: " in told and "state.db" in told


NOBODY = 65534


@pytest.fixture
def plain_user(tmp_path: Path) -> Iterator[Path]:
    """A folder of somebody who is not root, and may not write everywhere; root becomes that one for the test."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_a_folder_that_may_not_be_written_is_told_and_taken_up_when_it_may(plain_user: Path, clock: FakeClock) -> None:
    node = Node(plain_user / "state", clock)
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
    assert set(kept.over) == {key(7)}
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
