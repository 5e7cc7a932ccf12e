"""The ledger in ``state.db``: SQLite with a write-ahead log.

With ``synchronous=NORMAL`` a crash of the agent loses nothing that was committed. A power cut may lose the last
commits, each of them whole: holdings, charges and watermarks go back together, so no joule is counted twice.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from wattkeeper.errors import StoreError
from wattkeeper.ledger import schema
from wattkeeper.ledger.rows import facts_from_text, facts_to_text, owners_from_text, owners_to_text
from wattkeeper.model import EnergySample, GpuUuid, Holding, JobKey, Sharing, Watermark
from wattkeeper.protocols import Change, Kept
from wattkeeper.snapshot import AdminHold
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import Millijoules

BUSY_TIMEOUT_S = 2.0
"""How long a transaction waits for another process that reads or writes the file."""

log = logging.getLogger("wattkeeper.ledger")

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MENDS = {
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_READONLY: "let the agent's user own it, on a disk that can be written",
    sqlite3.SQLITE_CANTOPEN: "let the agent's user own its folder, on a disk that can be written",
    sqlite3.SQLITE_PERM: "let the agent's user own it",
    sqlite3.SQLITE_BUSY: "another process keeps it locked: end that one",
    sqlite3.SQLITE_CORRUPT: "restart the agent, which sets the file aside and begins a fresh one",
    sqlite3.SQLITE_NOTADB: "restart the agent, which sets the file aside and begins a fresh one",
}


class _DamagedError(Exception):
    """The file is no ledger, or one that cannot be read."""


class SqliteStore:
    """The ``Store`` on disk. May be used by one thread at a time, any thread."""

    def __init__(self, path: Path, wall: Callable[[], float] | None = None) -> None:
        """Open the file, or make it (mode 0600, its folder 0700).

        A damaged file is set aside and a fresh one begun; ``set_aside`` names it then. Raises StoreError, also for
        a file that a newer Wattkeeper has written.
        """
        self._path = path
        self._wall = wall or SystemClock().wall
        self.set_aside: Path | None = None
        """Where the damaged file went that was found in the place of the ledger; None where all was well."""
        try:
            self._db = self._open()
        except _DamagedError as damage:
            self._db = self._begin_afresh(damage)

    def load(self) -> Kept:
        """What was kept. Drops nothing; a file whose rows make no sense is set aside like a damaged one."""
        try:
            with self._transaction():
                return self._read()
        except _DamagedError as damage:
            self._db.close()
            self._db = self._begin_afresh(damage)
            return Kept()

    def commit(self, change: Change) -> None:
        """Write a change, whole or not at all. Raises StoreError."""
        with self._transaction():
            self._write(change)

    def close(self) -> None:
        """Close the files; nothing may follow."""
        try:
            self._db.close()
        except sqlite3.Error as error:
            raise self._explain("close", error) from None

    def _open(self) -> sqlite3.Connection:
        """A connection to a ledger of our version. Raises StoreError, or _DamagedError where it can be set aside."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._path.chmod(0o600)
        except OSError as error:
            mend = "let the agent's user own its folder, on a disk that can be written"
            raise StoreError(f"{self._path}: cannot open the ledger ({error.strerror}); {mend}") from None
        db = None
        try:
            db = sqlite3.connect(self._path, BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._prepare(db)
        except sqlite3.Error as error:
            if db:
                db.close()
            if _code(error) in _DAMAGED:
                raise _DamagedError(str(error)) from None
            raise self._explain("open", error) from None
        except (StoreError, _DamagedError):
            if db:
                db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            mend = "install that version again, or move the file away to begin a fresh one"
            text = f"a newer Wattkeeper wrote this ledger (version {version}, this one knows {schema.VERSION})"
            raise StoreError(f"{self._path}: {text}; {mend}")
        damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise _DamagedError(damage)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            db.execute("BEGIN IMMEDIATE")
            for statement in schema.TABLES:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {schema.VERSION}")
            db.execute("COMMIT")

    def _begin_afresh(self, damage: _DamagedError) -> sqlite3.Connection:
        """Move the damaged file out of the way and open a new one. Raises StoreError where that fails too."""
        stamp = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = self._path.with_name(f"{self._path.name}.corrupt-{stamp}")
        count = 1
        while aside.exists():
            count += 1
            aside = self._path.with_name(f"{self._path.name}.corrupt-{stamp}-{count}")
        try:
            for suffix in ("-wal", "-shm", ""):  # the log first: it must never be played into the fresh file
                part = Path(f"{self._path}{suffix}")
                if part.exists():
                    part.rename(f"{aside}{suffix}")
        except OSError as error:
            text = f"the ledger is damaged ({damage}) and cannot be moved aside ({error.strerror})"
            raise StoreError(f"{self._path}: {text}; move it away") from None
        self.set_aside = aside
        log.error("%s: the ledger is damaged (%s): set aside as %s, a fresh one begun", self._path, damage, aside)
        try:
            return self._open()
        except _DamagedError as again:
            raise StoreError(f"{self._path}: a fresh ledger is damaged too ({again}); check its disk") from None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise self._explain("use", error) from None

    def _explain(self, tried: str, error: Exception) -> StoreError:
        mend = _MENDS.get(_code(error), "check the disk it is on")
        return StoreError(f"{self._path}: cannot {tried} the ledger ({error}); {mend}")

    def _write(self, change: Change) -> None:
        db = self._db
        db.execute(schema.UPSERT_META, (change.boot_id, change.at))
        db.executemany(schema.DELETE_HOLDING, [(*_key(h.job.key), h.gpu) for h in change.removed])
        db.executemany(
            schema.UPSERT_HOLDING,
            [
                (*_key(h.job.key), h.gpu, facts_to_text(h.job), h.share.value, h.since_at, h.since_mono)
                for h in change.added
            ],
        )
        if change.over:
            db.executemany(schema.INSERT_OVER, [(*_key(key), change.at) for key in change.over])
            db.execute(schema.PRUNE_OVER_BY_AGE, (change.at - schema.OVER_KEPT_S,))
            db.execute(schema.PRUNE_OVER_BY_COUNT, (schema.OVER_KEPT,))
        db.executemany(
            schema.ADD_JOB_ENERGY,
            [(*_key(key), c.gpu, energy, change.at) for c in change.charges for key, energy in c.jobs_mj.items()],
        )
        nobodys = [(c.gpu, c.idle_mj, c.unattributed_mj) for c in change.charges]
        db.executemany(schema.ADD_GPU_ENERGY, nobodys)
        db.executemany(
            schema.UPSERT_WATERMARK,
            [
                (w.sample.gpu, w.sample.energy_mj, w.sample.at, w.sample.at_mono, w.sample.boot_id, owners)
                for w, owners in ((w, owners_to_text(w.owners)) for w in change.watermarks)
            ],
        )
        for gpu, hold in change.holds.items():
            if hold is None:
                db.execute(schema.DELETE_HOLD, (gpu,))
            else:
                db.execute(schema.UPSERT_HOLD, (gpu, hold.reason, hold.since_at, hold.until_at))

    def _read(self) -> Kept:
        try:
            return self._kept()
        except (ValueError, KeyError, TypeError) as error:
            raise _DamagedError(f"a row makes no sense: {error!r}") from None
        except sqlite3.DatabaseError as error:
            if _code(error) in _DAMAGED:
                raise _DamagedError(str(error)) from None
            raise

    def _kept(self) -> Kept:
        db = self._db
        boot_id, at = db.execute(schema.SELECT_META).fetchone() or (None, 0.0)
        holdings = []
        for cluster, job_id, run, uuid, facts, share, since_at, since_mono in db.execute(schema.SELECT_HOLDINGS):
            job = facts_from_text(JobKey(cluster, job_id, run), facts)
            holdings.append(Holding(job, GpuUuid(uuid), Sharing(share), since_at, since_mono))
        watermarks = {}
        for uuid, energy_mj, sampled_at, at_mono, boot, owners in db.execute(schema.SELECT_WATERMARKS):
            sample = EnergySample(GpuUuid(uuid), Millijoules(energy_mj), sampled_at, at_mono, boot)
            watermarks[GpuUuid(uuid)] = Watermark(sample, owners_from_text(owners))
        job_energy = {}
        for cluster, job_id, run, uuid, energy_mj in db.execute(schema.SELECT_JOB_ENERGY, (at - schema.RECENT_S,)):
            job_energy[JobKey(cluster, job_id, run), GpuUuid(uuid)] = Millijoules(energy_mj)
        gpu_energy = db.execute(schema.SELECT_GPU_ENERGY).fetchall()
        holds = db.execute(schema.SELECT_HOLDS)
        return Kept(
            boot_id=boot_id,
            holdings=tuple(holdings),
            over=frozenset(JobKey(*row) for row in db.execute(schema.SELECT_OVER)),
            watermarks=watermarks,
            job_energy_mj=job_energy,
            idle_mj={GpuUuid(uuid): Millijoules(idle) for uuid, idle, _ in gpu_energy},
            unattributed_mj={GpuUuid(uuid): Millijoules(nobodys) for uuid, _, nobodys in gpu_energy},
            holds={GpuUuid(uuid): AdminHold(reason, since, until) for uuid, reason, since, until in holds},
        )


def _key(key: JobKey) -> tuple[str, int, str]:
    return key.cluster, key.job_id, key.run


def _code(error: Exception) -> int:
    """SQLite's primary result code of an error, 0 where it has none: the low byte of the extended one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
