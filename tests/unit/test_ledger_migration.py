"""A ledger that an earlier release wrote is taken up with nothing lost. The statements are those of that release."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from wattkeeper.ledger.rows import local_day
from wattkeeper.ledger.schema import VERSION
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import (
    UNKNOWN,
    Charges,
    EnergySample,
    EnergySource,
    GpuUuid,
    Holding,
    JobFacts,
    JobKey,
    Sharing,
    Usage,
    Watermark,
)
from wattkeeper.protocols import Change, JobNote
from wattkeeper.snapshot import AdminHold
from wattkeeper.units import Millijoules

A = GpuUuid("GPU-a")
RUNS, ENDED = JobKey("lab", 7, "r0"), JobKey("lab", 6, "sXYZ")
NOW = 1_700_000_000.0
SINCE = NOW - 600

VERSION_1 = (
    "CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), boot_id TEXT NOT NULL, at REAL NOT NULL)",
    """CREATE TABLE holdings (
        cluster TEXT NOT NULL, job_id INTEGER NOT NULL, run TEXT NOT NULL, uuid TEXT NOT NULL,
        facts TEXT NOT NULL, share TEXT NOT NULL, since_at REAL NOT NULL, since_mono REAL NOT NULL,
        PRIMARY KEY (cluster, job_id, run, uuid)
    )""",
    """CREATE TABLE over (
        cluster TEXT NOT NULL, job_id INTEGER NOT NULL, run TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (cluster, job_id, run)
    )""",
    "CREATE INDEX over_at ON over (at)",
    """CREATE TABLE watermarks (
        uuid TEXT PRIMARY KEY, energy_mj INTEGER NOT NULL, at REAL NOT NULL, at_mono REAL NOT NULL,
        boot_id TEXT NOT NULL, owners TEXT NOT NULL
    )""",
    """CREATE TABLE job_energy (
        cluster TEXT NOT NULL, job_id INTEGER NOT NULL, run TEXT NOT NULL, uuid TEXT NOT NULL,
        energy_mj INTEGER NOT NULL, last_at REAL NOT NULL,
        PRIMARY KEY (cluster, job_id, run, uuid)
    )""",
    "CREATE INDEX job_energy_last_at ON job_energy (last_at)",
    """CREATE TABLE gpu_energy (
        uuid TEXT PRIMARY KEY, idle_mj INTEGER NOT NULL, unattributed_mj INTEGER NOT NULL
    )""",
    "CREATE TABLE holds (uuid TEXT PRIMARY KEY, reason TEXT NOT NULL, since_at REAL NOT NULL, until_at REAL)",
    "PRAGMA user_version = 1",
)

FACTS = """{"known": {"uid": 1000, "user": "alice", "account": "physics", "partition": "gpu", "reservation": null,
    "constraint": null, "comment": "power=250W", "num_nodes": 1, "gpus": 1, "node": "n1", "het_job_id": null},
    "unknown": ["qos", "job_name"]}"""

ROWS = (
    ("INSERT INTO meta VALUES (1, 'boot-1', ?)", (NOW,)),
    ("INSERT INTO holdings VALUES ('lab', 7, 'r0', 'GPU-a', ?, 'whole', ?, 20.5)", (FACTS, SINCE)),
    ("INSERT INTO over VALUES ('lab', 6, 'sXYZ', ?)", (SINCE,)),
    ("""INSERT INTO watermarks VALUES ('GPU-a', 5000, ?, 620.5, 'boot-1', '[["lab", 7, "r0"]]')""", (NOW,)),
    ("INSERT INTO job_energy VALUES ('lab', 7, 'r0', 'GPU-a', 3000, ?)", (NOW,)),
    ("INSERT INTO job_energy VALUES ('lab', 6, 'sXYZ', 'GPU-a', 1900, ?)", (SINCE,)),
    ("INSERT INTO gpu_energy VALUES ('GPU-a', 60, 40)", ()),
    ("INSERT INTO holds VALUES ('GPU-a', 'fan', 1.5, NULL)", ()),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of version 1, as an agent left it that was killed while job 7 ran."""
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as db, db:
        for statement in VERSION_1:
            db.execute(statement)
        for statement, values in ROWS:
            db.execute(statement, values)
    return path


def one(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(statement).fetchall()


def facts() -> JobFacts:
    return JobFacts(
        RUNS, 1000, "alice", "physics", "gpu", UNKNOWN, UNKNOWN, comment="power=250W", num_nodes=1, gpus=1, node="n1"
    )


def test_everything_is_there_afterwards(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        kept = store.load()
    assert kept.boot_id == "boot-1"
    assert kept.holdings == (Holding(facts(), A, Sharing.WHOLE, SINCE, 20.5),)
    assert set(kept.over) == {ENDED}
    assert kept.watermarks == {A: Watermark(EnergySample(A, Millijoules(5000), NOW, 620.5, "boot-1"), (RUNS,))}
    counted = frozenset({EnergySource.COUNTER})
    assert kept.usage == {
        (RUNS, A): Usage(Millijoules(3000), 600 * 10**9, sources=counted),  # it held the GPU all the time
        (ENDED, A): Usage(Millijoules(1900), sources=counted),
    }
    assert kept.accounts_mj == {("physics", "gpu"): 3000, ("", ""): 1900}
    assert (kept.idle_mj, kept.unattributed_mj) == ({A: 60}, {A: 40})
    assert kept.holds == {A: AdminHold("fan", 1.5, None)}
    assert one(path, "PRAGMA user_version") == [(VERSION,)]


def test_what_days_and_accounts_sum_to_is_what_the_counters_gained(path: Path) -> None:
    SqliteStore(path).close()
    assert one(path, "SELECT sum(energy_mj) FROM days") == one(path, "SELECT sum(energy_mj) FROM accounts") == [(4900,)]
    assert one(path, "SELECT idle_mj, unattributed_mj FROM gpu_days") == [(60, 40)]
    assert one(path, "SELECT day, user FROM days WHERE account = 'physics'") == [(local_day(NOW), "alice")]


def test_a_job_that_runs_across_the_upgrade_is_recorded_whole(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        charges = Charges(A, {RUNS: Millijoules(70)}, held_ns=10**9, at=NOW + 1)
        ended = JobNote(facts(), SINCE, NOW + 1)
        store.commit(Change("boot-1", NOW + 1, over=(RUNS,), charges=(charges,), notes=(ended,)))
        [record] = store.unrecorded()
    assert record.note == ended
    assert record.usage[A].energy_mj == 3070
    assert record.usage[A].held_ns == 601 * 10**9


def test_it_is_taken_up_once(path: Path) -> None:
    SqliteStore(path).close()
    with closing(SqliteStore(path)) as store:
        assert store.load().accounts_mj == {("physics", "gpu"): 3000, ("", ""): 1900}


def test_one_whose_rows_make_no_sense_is_set_aside_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE holdings SET facts = '{'")
    with closing(SqliteStore(path, lambda: NOW)) as store:
        assert store.load().holdings == ()
        aside = store.set_aside
    assert aside is not None
    assert one(aside, "PRAGMA user_version") == [(1,)]
    assert one(aside, "SELECT sum(energy_mj) FROM job_energy") == [(4900,)]
