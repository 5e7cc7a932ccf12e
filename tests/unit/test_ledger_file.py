"""What only a ledger on disk can get wrong: damage, rights, locks, crashes, age."""

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.changes import DAY, NOW, A, change, charges, holding, key, mark, note, used

from wattkeeper.errors import StoreError
from wattkeeper.ledger.rows import local_day
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.protocols import Kept

DAMAGED_AT = 1_700_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib" / "state.db"


def open_store(path: Path) -> SqliteStore:
    return SqliteStore(path, lambda: DAMAGED_AT)


def test_what_was_written_is_there_after_a_kill(path: Path) -> None:
    killed = open_store(path)
    killed.commit(change(added=(holding(1),), charges=(charges(A, j1=5),), watermarks=(mark(A, 5, key(1)),)))
    with closing(open_store(path)) as store:  # the first was never closed
        assert store.load().usage == {(key(1), A): used(5)}
        assert store.load().holdings == (holding(1),)
    killed.close()


def test_only_its_owner_reads_the_ledger(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    with closing(open_store(path)) as store:
        store.commit(change(added=(holding(1),)))
        files = sorted(path.parent.iterdir())
        assert len(files) == 3  # with the log and its index
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_change_that_cannot_be_written_whole_is_not_written_at_all(path: Path) -> None:
    with closing(open_store(path)) as store:
        store.commit(change(added=(holding(1),), charges=(charges(A, idle=1),)))
        before = store.load()
        too_much = change(
            NOW + 1, "boot-2", removed=(holding(1),), charges=(charges(A, idle=2), charges(A, idle=2**70))
        )
        with pytest.raises(StoreError, match=r"state\.db: this cannot be written"):
            store.commit(too_much)
        assert store.load() == before
        store.commit(change(removed=(holding(1),)))  # and it goes on
        assert store.load().holdings == ()


def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    open_store(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    content = path.read_bytes()
    with pytest.raises(StoreError, match=r"state\.db: a newer Wattkeeper .*version 99.*; install that version"):
        open_store(path)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]


def not_sqlite(path: Path) -> None:
    path.write_bytes(b"no database at all, " * 500)


def cut_short(path: Path) -> None:
    os.truncate(path, 8192)


def page_overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def senseless_facts(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE holdings SET facts = '{'")


def senseless_share(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE holdings SET share = 'half'")


@pytest.mark.parametrize("damage", [not_sqlite, cut_short, page_overwritten, senseless_facts, senseless_share])
def test_a_damaged_file_is_set_aside_and_a_fresh_one_begun(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_store(path)) as store:
        store.commit(change(added=(holding(1),)))
    damage(path)
    with closing(open_store(path)) as store:
        assert store.load() == Kept()
        aside = path.parent / "state.db.corrupt-20231114T221320Z"
        assert store.set_aside == aside
        assert aside.exists()
        assert str(aside) in caplog.text
        store.commit(change(added=(holding(2),)))
    with closing(open_store(path)) as store:
        assert store.load().holdings == (holding(2),)
        assert store.set_aside is None


def test_damage_among_a_years_jobs_does_not_hold_up_the_start_and_is_found_when_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattkeeper.ledger.store.CHECKED_WHOLE", 0)
    with closing(open_store(path)) as store:
        store.commit(change(added=(holding(1),), notes=tuple(note(number, NOW) for number in range(2, 500))))
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs'").fetchone()
    with path.open("r+b") as file:
        file.seek(4096 * (root - 1))
        file.write(b"\xff" * 4096)
    with closing(open_store(path)) as store:
        assert [h.job.key for h in store.load().holdings] == [key(1)]
        with pytest.raises(StoreError, match=r"state\.db: .*malformed.*; the agent sets it aside within a minute"):
            store.commit(change(notes=(note(2, NOW),)))
    with closing(SqliteStore(path, lambda: DAMAGED_AT, check_all=True)) as store:
        assert store.set_aside is not None
        store.commit(change(notes=(note(2, NOW),)))


def test_pruning_removes_days_of_before_and_energy_of_which_nothing_else_is_known(path: Path) -> None:
    def days() -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(path)) as db:
            of_jobs = db.execute("SELECT day, sum(energy_mj), sum(held_ns) FROM days GROUP BY day").fetchall()
            return of_jobs + db.execute("SELECT day, idle_mj, unattributed_mj FROM gpu_days ORDER BY day").fetchall()

    def energy() -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(path)) as db:
            return db.execute("SELECT job_id, energy_mj FROM job_energy ORDER BY job_id").fetchall()

    later = NOW + 10 * DAY
    with closing(open_store(path)) as store:
        store.commit(change(NOW, added=(holding(2),), charges=(charges(A, j1=5, j2=6, idle=1, nobodys=2),)))
        store.commit(change(later, charges=(replace(charges(A, j3=7, idle=4), held_ns=9),)))
        first, second = local_day(NOW), local_day(later)
        assert days() == [(first, 11, 0), (second, 7, 9), (first, 1, 2), (second, 4, 0)]
        store.prune(later)
        assert days() == [(second, 7, 9), (second, 4, 0)]
        assert energy() == [(2, 6), (3, 7)]  # job 2 holds a GPU
        assert store.load().idle_mj == {A: 5}


def test_a_second_damaged_file_does_not_overwrite_the_first(path: Path) -> None:
    path.parent.mkdir()
    for content in (b"first " * 1000, b"second " * 1000):
        path.write_bytes(content)
        open_store(path).close()
    aside = sorted(path.parent.glob("state.db.corrupt-*"))
    assert [file.read_bytes()[:6] for file in aside] == [b"first ", b"second"]


def test_a_log_left_by_a_damaged_file_is_not_played_into_the_fresh_one(path: Path) -> None:
    open_store(path).close()  # all but the next commit is in the file itself
    killed = open_store(path)
    killed.commit(change(added=(holding(1),)))
    log = Path(f"{path}-wal").read_bytes()
    killed.close()
    path.write_bytes(b"damaged " * 1000)
    Path(f"{path}-wal").write_bytes(log)
    with closing(open_store(path)) as store:
        assert store.load() == Kept()


def test_a_folder_in_its_place_is_named_with_the_mend(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"state\.db: is not a regular file: .* put one there"):
        open_store(path)


def test_a_file_that_another_process_keeps_locked_is_named_with_the_mend(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wattkeeper.ledger.store.BUSY_TIMEOUT_S", 0.05)
    with closing(open_store(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"state\.db: .*locked.*; another process keeps it locked"):
            store.commit(change())
        other.execute("ROLLBACK")
        store.commit(change())


def test_a_reader_does_not_hold_up_the_writer(path: Path) -> None:
    with closing(open_store(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM holdings").fetchall()
        store.commit(change(added=(holding(1),)))
        assert store.load().holdings == (holding(1),)
