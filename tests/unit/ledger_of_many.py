"""A ledger with as many jobs as a site has in a year, made by SQLite itself: a million in some seconds.

``python -m tests.unit.ledger_of_many 1000000`` makes one, and prints how long a report of all of it takes.
"""

import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from wattkeeper.ledger import schema
from wattkeeper.ledger.report import Field, Question, Report, read_report

LAST_DAY = "2026-11-23"
FIRST_DAY = "2025-10-20"
DAYS = 400
ACCOUNTS, USERS, PARTITIONS = 40, 500, 4

_NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
_JOBS = f"""{_NUMBERS}
    INSERT INTO jobs (job_id, run, cluster, uid, user, account, partition, started_at, ended_at, day, outcome, facts,
                      recorded)
    SELECT i, 'r0', 'c', 1000 + i / 7 % {USERS}, 'user' || (i / 7 % {USERS}), 'acct' || (i / 3 % {ACCOUNTS}),
           'part' || (i / 11 % {PARTITIONS}), 1.76e9 + i, 1.76e9 + i + 60,
           date('{LAST_DAY}', -(i * 104729 % {DAYS}) || ' days'), 'none',
           '{{"known": {{"uid": 1000}}, "unknown": ["qos"]}}', 1
    FROM n"""  # noqa: S608 - only our own constants
_ENERGY = f"""{_NUMBERS}
    INSERT INTO job_energy (job_id, run, cluster, uuid, energy_mj, last_at, held_ns, minor, model, bases, sources)
    SELECT i, 'r0', 'c', 'GPU-0', 1000 * i, 1.76e9 + i + 60, 60000000000, 0, 'H100', 1, 1 FROM n"""  # noqa: S608
_DAYS = """INSERT INTO days
    SELECT day, account, partition, user, SUM(1000 * job_id), COUNT(*) * 60000000000 FROM jobs GROUP BY 1, 2, 3, 4"""
_GPU_DAYS = "INSERT INTO gpu_days SELECT DISTINCT day, 5000000, 1000 FROM days"


def make_ledger(path: Path, jobs: int) -> None:
    """Job N has used N joules in a minute; on each day the GPUs used 5 kJ idle, and 1 J of nobody's."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN")
        for statement in schema.TABLES:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {schema.VERSION}")
        db.execute(_JOBS, (jobs,))
        db.execute(_ENERGY, (jobs,))
        db.execute(_DAYS)
        db.execute(_GPU_DAYS)
        db.execute("COMMIT")


def report_of_all(path: Path, *by: Field) -> tuple[Report, float]:
    """The report of every day, and how long it took, in seconds."""
    start = time.perf_counter()
    report = read_report(path, Question(FIRST_DAY, LAST_DAY, by or ("account",)))
    return report, time.perf_counter() - start


if __name__ == "__main__":
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "state.db"
        began = time.perf_counter()
        make_ledger(ledger, count)
        print(f"{count} jobs made in {time.perf_counter() - began:.1f} s, {ledger.stat().st_size / 2**20:.0f} MiB")
        for fields in (("account",), ("user",), ("day",), ("account", "user", "partition", "day")):
            report, took_s = report_of_all(ledger, *fields)
            print(f"report by {', '.join(fields)}: {len(report.rows)} rows in {took_s:.2f} s")
