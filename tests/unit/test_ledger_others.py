"""Another program at the ledger of an agent that runs: it is seen at the next write, and what is known is kept."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.contract.changes import change, note
from tests.unit.ledger_agent import DAY, NOW, A, FakeClock, Meter, Node, finished, key, troubles

from wattkeeper.agent.ledger import REOPEN_S
from wattkeeper.ledger.report import find_runs
from wattkeeper.ledger.store import SqliteStore


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "state", FakeClock())


def overwritten(ledger: Path) -> None:
    with ledger.open("r+b") as file:
        file.write(b"this is no ledger any more " * 1000)


def copied_over(ledger: Path) -> None:
    """``cp`` keeps the file and replaces what is in it."""
    garbage = ledger.with_name("garbage")
    garbage.write_bytes(b"damaged " * 20_000)
    shutil.copyfile(garbage, ledger)


def moved_over(ledger: Path) -> None:
    garbage = ledger.with_name("garbage")
    garbage.write_bytes(b"damaged " * 20_000)
    garbage.rename(ledger)


def cut_short(ledger: Path) -> None:
    os.truncate(ledger, 8192)


def emptied(ledger: Path) -> None:
    os.truncate(ledger, 0)


def removed(ledger: Path) -> None:
    ledger.unlink()


def all_removed(ledger: Path) -> None:
    for path in ledger.parent.glob("state.db*"):
        path.unlink()


def log_removed(ledger: Path) -> None:
    Path(f"{ledger}-wal").unlink()


@pytest.mark.parametrize(
    ("harm", "said", "energy_mj"),
    [
        (overwritten, "was overwritten", 400),  # 100 had been written to what is no more
        (copied_over, "was overwritten", 400),
        (cut_short, "was cut short", 400),
        (emptied, "was cut short", 400),
        (moved_over, "was replaced by another file", 500),
        (removed, "was removed", 500),
        (all_removed, "was removed", 500),
        (log_removed, "lost its write-ahead log", 500),
    ],
)
def test_what_becomes_of_the_file_is_seen_while_the_agent_runs(
    node: Node, harm: Callable[[Path], None], said: str, energy_mj: int, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = node.folder / "state.db"

    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        await meter.tick()
        await finished(meter)
        harm(ledger)
        assert not await meter.tick()
        assert str(meter.writer.alarm) == (
            f"the ledger cannot be written, going on in memory: {ledger}: the ledger {said}; "
            "within a minute the agent puts a removed one back, and sets a damaged one aside"
        )
        assert not await meter.tick()
        assert await meter.tick(seconds=REOPEN_S)
        assert meter.writer.alarm is None
        assert await meter.tick()
        meter.writer.close()

    asyncio.run(scene())
    kept = node.load()
    assert [h.job.key for h in kept.holdings] == [key()]
    assert kept.watermarks[A].sample.energy_mj == 500
    assert kept.usage[key(), A].energy_mj == energy_mj
    assert len([text for text in troubles(caplog) if "going on in memory" in text]) == 1


@pytest.mark.parametrize("harm", [overwritten, emptied, moved_over, removed])
def test_what_waits_when_the_agent_stops_is_written_even_then(node: Node, harm: Callable[[Path], None]) -> None:
    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        await finished(meter)
        await meter.quiet_tick()
        harm(node.folder / "state.db")
        meter.writer.close()

    asyncio.run(scene())
    assert node.load().usage[key(), A].energy_mj == 100


def test_a_file_that_was_moved_over_the_ledger_is_kept_beside_it(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        await finished(meter)
        moved_over(node.folder / "state.db")
        meter.writer.close()

    asyncio.run(scene())
    (other,) = node.folder.glob("state.db.replaced-*")
    assert other.read_bytes().startswith(b"damaged ")
    assert f"is put back; what lay in its place is now {other}" in caplog.text
    assert (node.folder / "state.db").stat().st_mode & 0o777 == 0o600
    assert [h.job.key for h in node.load().holdings] == [key()]


def test_others_may_read_and_write_it(node: Node) -> None:
    """Another program reads the ledger, and one writes to it; neither is taken for damage."""

    async def scene() -> None:
        meter, _ = node.begin()
        await meter.start()
        for _ in range(3):
            with closing(sqlite3.connect(node.folder / "state.db")) as other:
                assert other.execute("SELECT count(*) FROM holdings").fetchone() == (1,)
            assert await meter.tick()
        with closing(sqlite3.connect(node.folder / "state.db")) as other, other:
            other.execute("DELETE FROM over")
        assert await meter.tick()
        meter.writer.close()

    asyncio.run(scene())
    assert node.load().usage[key(), A].energy_mj == 400


def test_a_ledger_that_was_set_aside_is_an_alarm_for_a_day_and_over_restarts(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        meter, _ = node.begin()
        assert meter.writer.aside_alarm is None
        await meter.start()
        await finished(meter)
        overwritten(node.folder / "state.db")
        assert not await meter.tick()
        assert meter.writer.aside_alarm is None
        assert await meter.tick(seconds=REOPEN_S)
        (aside,) = node.folder.glob("state.db.corrupt-*")
        said = (
            f"the ledger was damaged and a fresh one begun: {aside} is the old one; "
            "reports lack what it held, records/ beside it has the jobs that ended"
        )
        assert str(meter.writer.aside_alarm) == said
        meter.writer.close()
        node.clock.go_on(DAY / 2)
        meter, _ = node.begin()
        assert str(meter.writer.aside_alarm) == said
        node.clock.go_on(DAY / 2)
        assert meter.writer.aside_alarm is None
        meter.writer.close()

    asyncio.run(scene())
    (line,) = [text for text in troubles(caplog) if "set aside as" in text]
    assert "\n" not in line


def test_sqlites_own_line_break_stays_out_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state.db"
    with closing(SqliteStore(path)) as store:
        store.commit(change(notes=tuple(note(number, NOW) for number in range(2, 500))))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    SqliteStore(path).close()
    (line,) = [text for text in troubles(caplog) if "set aside as" in text]
    assert "\n" not in line


READ_AND_CLOSE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("SELECT count(*) FROM holdings").fetchall()
db.close()
"""


def read_and_close(ledger: Path) -> None:
    """As another program, which has no lock of ours."""
    subprocess.run([sys.executable, "-c", READ_AND_CLOSE, str(ledger)], check=True)


def test_a_question_about_an_old_job_does_not_let_others_take_the_log_away(node: Node) -> None:
    """Whoever closes a ledger last puts its log away; the agent has it open, and its locks must say so."""
    ledger = node.folder / "state.db"

    async def scene() -> Meter:
        meter, _ = node.begin()
        await meter.start()
        assert len(find_runs(ledger, 1, 0)) == 1
        read_and_close(ledger)
        assert await meter.tick()
        return meter

    meter = asyncio.run(scene())
    with closing(sqlite3.connect(ledger)) as other:
        assert other.execute("SELECT energy_mj FROM job_energy").fetchone() == (100,)
    meter.writer.close()
