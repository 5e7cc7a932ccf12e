"""The ledger in ``state.db``: SQLite with a write-ahead log.

With ``synchronous=NORMAL`` a crash of the agent loses nothing that was committed. A power cut may lose the last
commits, each of them whole: holdings, charges and watermarks go back together, so no joule is counted twice.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from wattkeeper.errors import StoreError
from wattkeeper.ledger import aside, schema
from wattkeeper.ledger import statements as sql
from wattkeeper.ledger.migrations import migrate
from wattkeeper.ledger.reading import read_kept
from wattkeeper.ledger.rows import key_row, read_records
from wattkeeper.ledger.watch import Watch
from wattkeeper.ledger.writing import Writer
from wattkeeper.model import JobKey
from wattkeeper.protocols import Change, JobRecord, Kept
from wattkeeper.system.clock import SystemClock
from wattkeeper.system.failpoint import failpoint
from wattkeeper.system.trust import Trust, UntrustedError, open_trusted
from wattkeeper.text import printable

T = TypeVar("T")

BUSY_TIMEOUT_S = 2.0
"""How long a transaction waits for another process that reads or writes the file."""

CHECKED_WHOLE = 64 * 2**20
"""A larger file is checked at once only where the agent cannot go on without it: reading a year of jobs takes long."""

log = logging.getLogger("wattkeeper.ledger")

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MENDS = {
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_READONLY: "let the agent's user own it, on a disk that can be written",
    sqlite3.SQLITE_CANTOPEN: "let the agent's user own its folder, on a disk that can be written",
    sqlite3.SQLITE_PERM: "let the agent's user own it",
    sqlite3.SQLITE_BUSY: "another process keeps it locked: end that one",
    sqlite3.SQLITE_CORRUPT: "the agent sets it aside within a minute and begins a fresh one",
    sqlite3.SQLITE_NOTADB: "the agent sets it aside within a minute and begins a fresh one",
}

_OPENED_ANEW = "within a minute the agent puts a removed one back, and sets a damaged one aside"


class SpentStoreError(StoreError):
    """The ledger is of no more use as it is open: it may be when it is opened anew."""


class _FullError(StoreError):
    """The disk is full."""


class _DamagedError(Exception):
    """The file is no ledger, or one that cannot be read. Says why on one line: SQLite takes two."""

    def __init__(self, why: object) -> None:
        super().__init__(printable(" ".join(str(why).split())))


class UnwritableError(StoreError):
    """No ledger can hold what a change says: it is of no use to try again."""


class SqliteStore:
    """The ``Store`` on disk. May be used by one thread at a time, any thread."""

    def __init__(self, path: Path, wall: Callable[[], float] | None = None, *, check_all: bool = False) -> None:
        """Open the file, or make it (mode 0600, its folder 0700).

        A damaged file is set aside and a fresh one begun; ``set_aside`` names it then. ``check_all``: look for damage
        in all of a file larger than ``CHECKED_WHOLE`` too, which takes seconds. Raises StoreError, also for a file that
        a newer Wattkeeper has written.
        """
        self._path = path
        self._check_all = check_all
        self._wall = wall or SystemClock().wall
        self.set_aside: Path | None = None
        """Where the damaged file went that was found in the place of the ledger; None where all was well."""
        try:
            self._db, self._watch = self._open()
        except _DamagedError as damage:
            self._db, self._watch = self._begin_afresh(damage)
        self._writer = Writer(self._db)

    def load(self) -> Kept:
        """What was kept. Drops nothing; a file whose rows make no sense is set aside like a damaged one."""
        try:
            with self._transaction():
                return self._sensible(read_kept)
        except _DamagedError as damage:
            self._db.close()
            self._watch.close()
            self._db, self._watch = self._begin_afresh(damage)
            self._writer = Writer(self._db)
            return Kept()

    def commit(self, change: Change) -> None:
        """Write a change, whole or not at all. Raises StoreError, UnwritableError where no other try can succeed."""
        try:
            self._write(change)
        except _FullError:
            self._free_log()
            self._write(change)

    def unrecorded(self) -> Sequence[JobRecord]:
        """Ended runs whose record has not been noted, oldest first, at most ``schema.RECORDED_AT_ONCE``.

        What is given is on the disk: no power cut takes it back after its record was written.
        """
        where = f"{sql.UNRECORDED} ORDER BY ended_at, rowid LIMIT ?"
        try:
            with self._transaction("BEGIN"):
                found = self._sensible(lambda db: read_records(db, where, (schema.RECORDED_AT_ONCE,)))
            if found:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._watch.seen()
        except sqlite3.Error as error:
            raise self._explain("use", error) from None
        except _DamagedError as damage:
            raise StoreError(
                f"{self._path}: the ledger is damaged ({damage}); {_MENDS[sqlite3.SQLITE_CORRUPT]}"
            ) from None
        return found

    def note_recorded(self, keys: Sequence[JobKey]) -> None:
        """Their records are written. Raises StoreError."""
        with self._transaction():
            self._db.executemany(sql.NOTE_RECORDED, [key_row(key) for key in keys])

    def prune(self, before_at: float) -> int:
        """Forget recorded jobs that ended earlier, and days before. Raises StoreError."""
        with self._transaction():
            return self._writer.prune(before_at)

    def close(self) -> None:
        """Close the files; nothing may follow. One that was removed is put back: it is whole for as long as it is open.

        Raises StoreError.
        """
        saved = self._save() if self._watch.lost else None
        try:
            self._db.close()
        except sqlite3.Error as error:
            raise self._explain("close", error) from None
        finally:
            self._watch.close()
        if saved is not None:
            self._put_back(saved)

    def _save(self) -> Path | None:
        """What the connection has, in a new file; None where that cannot be."""
        saved = self._path.with_name(f"{self._path.name}.saved")
        try:
            saved.unlink(missing_ok=True)
            self._db.execute("VACUUM INTO ?", (str(saved),))
            saved.chmod(0o600)
        except (sqlite3.Error, OSError) as error:
            log.error("%s: the ledger was removed, and cannot be put back: %s", self._path, error)
            return None
        return saved

    def _put_back(self, saved: Path) -> None:
        try:
            moved = aside.put_back(saved, self._path, self._wall())
        except OSError as error:
            text = f"the ledger was removed, and cannot be put back ({error.strerror})"
            raise StoreError(f"{self._path}: {text}; move {saved} there while the agent is stopped") from None
        instead = f"; what lay in its place is now {moved}" if moved else ""
        log.warning("%s: the ledger was removed while it was open, and is put back%s", self._path, instead)

    def _open(self) -> tuple[sqlite3.Connection, Watch]:
        """A connection to a ledger of our version. Raises StoreError, or _DamagedError where it can be set aside."""
        watch = self._open_file()
        db = None
        try:
            db = sqlite3.connect(self._path, BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._prepare(db)
        except (sqlite3.Error, OSError, StoreError, _DamagedError) as error:
            if db:
                db.close()
            watch.close()
            if isinstance(error, OSError):
                raise self._not_opened(error) from None
            if not isinstance(error, sqlite3.Error):
                raise
            if _code(error) in _DAMAGED:
                raise _DamagedError(error) from None
            raise self._explain("open", error) from None
        watch.seen()
        return db, watch

    def _open_file(self) -> Watch:
        """The file itself, made where there is none. Raises StoreError where it cannot be opened or trusted."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = open_trusted(self._path, _trust(self._path.parent), os.O_RDWR | os.O_CREAT, 0o600)
            watch = Watch(self._path, file)
            try:
                os.fchmod(file, 0o600)
            except OSError:
                watch.close()
                raise
        except UntrustedError as error:
            raise StoreError(str(error)) from None
        except OSError as error:
            raise self._not_opened(error) from None
        return watch

    def _not_opened(self, error: OSError) -> StoreError:
        mend = _MENDS[sqlite3.SQLITE_CANTOPEN]
        return StoreError(f"{self._path}: cannot open the ledger ({error.strerror}); {mend}")

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            mend = "install that version again, or move the file away to begin a fresh one"
            text = f"a newer Wattkeeper wrote this ledger (version {version}, this one knows {schema.VERSION})"
            raise StoreError(f"{self._path}: {text}; {mend}")
        whole = version < schema.VERSION or self._check_all or self._path.stat().st_size <= CHECKED_WHOLE
        for part in (1,) if whole else schema.NEEDED:
            damage = db.execute(f"PRAGMA quick_check({part})").fetchone()[0]
            if damage != "ok":
                raise _DamagedError(damage)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if version < schema.VERSION:
            try:
                migrate(db, version)
            except (ValueError, KeyError, TypeError) as error:
                raise _DamagedError(f"a row makes no sense: {error!r}") from None
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # tables in the file, or a full disk leaves no room for them

    def _begin_afresh(self, damage: _DamagedError) -> tuple[sqlite3.Connection, Watch]:
        """Move the damaged file out of the way and open a new one. Raises StoreError where that fails too."""
        place = aside.name_for(self._path, self._wall())
        try:
            for suffix in ("-wal", "-shm", ""):  # the log first: it must never be played into the fresh file
                part = Path(f"{self._path}{suffix}")
                if part.exists():
                    part.rename(f"{place}{suffix}")
        except OSError as error:
            text = f"the ledger is damaged ({damage}) and cannot be moved aside ({error.strerror})"
            raise StoreError(f"{self._path}: {text}; move it away") from None
        self.set_aside = place
        log.error("%s: the ledger is damaged (%s): set aside as %s, a fresh one begun", self._path, damage, place)
        try:
            return self._open()
        except _DamagedError as again:
            raise StoreError(f"{self._path}: a fresh ledger is damaged too ({again}); check its disk") from None

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        fault = self._watch.fault()
        if fault is not None:
            raise SpentStoreError(f"{self._path}: the ledger {fault}; {_OPENED_ANEW}")
        try:
            self._db.execute(begin)
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._writer.forget()
                    self._db.execute("ROLLBACK")
                self._watch.seen()
        except (OverflowError, UnicodeError) as error:
            raise UnwritableError(f"{self._path}: this cannot be written ({error}); please report it") from None
        except sqlite3.Error as error:
            raise self._explain("use", error) from None

    def _write(self, change: Change) -> None:
        with self._transaction():
            self._writer.write(change)
            failpoint("ledger.commit")
        failpoint("ledger.committed")

    def _free_log(self) -> None:
        """On a full disk: put what the log holds in the file, so that the room that the log has can be used again."""
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._watch.seen()

    def _explain(self, tried: str, error: Exception) -> StoreError:
        mend = _MENDS.get(_code(error), "check the disk it is on")
        kind = {sqlite3.SQLITE_FULL: _FullError, sqlite3.SQLITE_BUSY: StoreError, sqlite3.SQLITE_READONLY: StoreError}
        return kind.get(_code(error), SpentStoreError)(f"{self._path}: cannot {tried} the ledger ({error}); {mend}")

    def _sensible(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return read(self._db)
        except (ValueError, KeyError, TypeError) as error:
            raise _DamagedError(f"a row makes no sense: {error!r}") from None
        except sqlite3.DatabaseError as error:
            if _code(error) in _DAMAGED:
                raise _DamagedError(error) from None
            raise


def _trust(folder: Path) -> Trust:
    """Root looks at a ledger that the agent's user keeps, in a folder of that user's."""
    return Trust(owners=frozenset({folder.stat().st_uid} if os.geteuid() == 0 else ()))


def _code(error: Exception) -> int:
    """SQLite's primary result code of an error, 0 where it has none: the low byte of the extended one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
