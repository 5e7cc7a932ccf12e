"""What the ledger answers: sums of what the agent committed, to the millijoule."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.lab.waiting import record
from tests.unit.ledger_of_many import FIRST_DAY, LAST_DAY, make_ledger, report_of_all

from wattkeeper.errors import StoreError
from wattkeeper.ledger import schema
from wattkeeper.ledger.report import ENDED, Field, Question, find_runs, read_report
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import Charges, GpuUuid, JobFacts, JobKey
from wattkeeper.protocols import Change, GpuNote, JobNote
from wattkeeper.units import Millijoules, Milliwatts

A, B = GpuUuid("GPU-a"), GpuUuid("GPU-b")
HOUR_NS = 3_600 * 10**9


def noon(day: str) -> float:
    return datetime.fromisoformat(f"{day}T12:00").astimezone().timestamp()


def key(job_id: int, run: str = "r0") -> JobKey:
    return JobKey("c", job_id, run)


def note(job_id: int, ended: str | None = None, *, run: str = "r0", uid: int = 1000, **facts: Any) -> JobNote:
    ended_at = None if ended is None else noon(ended)
    known = JobFacts(key(job_id, run), uid, node="n1", **facts)
    return JobNote(known, noon("2026-11-01"), ended_at, gpus={A: GpuNote(0, "H100", Milliwatts(300_000))})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """Two accounts over two days; job 3 has no account and still runs."""
    with closing(SqliteStore(path)) as made:
        ml: dict[str, Any] = {"account": "ml", "partition": "gpu"}
        jobs = (note(1, **ml, user="ann"), note(2, **ml, user="bob"), note(3, partition="debug", user="eve"))
        charge(made, "2026-11-20", Charges(A, {key(1): Millijoules(7)}, held_ns=HOUR_NS), notes=jobs)
        charge(made, "2026-11-20", Charges(A, {key(3): Millijoules(5)}, held_ns=HOUR_NS))
        both = {key(2): Millijoules(30), key(3): Millijoules(1)}
        charge(made, "2026-11-21", Charges(B, both, idle_mj=Millijoules(100), held_ns=2 * HOUR_NS))
        charge(made, "2026-11-21", Charges(A, unattributed_mj=Millijoules(9)))
        ended = (note(1, "2026-11-20", **ml, user="ann"), note(2, "2026-11-21", **ml, user="bob"))
        charge(made, "2026-11-21", notes=ended, over=(key(1), key(2)))
        yield made


def charge(
    store: SqliteStore, day: str, *charges: Charges, notes: tuple[JobNote, ...] = (), over: tuple[JobKey, ...] = ()
) -> None:
    store.commit(Change("boot", noon(day), charges=charges, notes=notes, over=over))


def ask(path: Path, *by: Field, first: str = "2026-11-01", last: str = "2026-11-30", **globs: str) -> Question:
    return Question(first, last, by or ("account",), {name: (glob,) for name, glob in globs.items()})  # type: ignore[misc]


def rows(path: Path, *by: Field, **more: str) -> list[tuple[tuple[str, ...], int, int | None]]:
    answer = read_report(path, ask(path, *by, **more))
    return [(row.keys, row.amount.energy_mj, row.amount.jobs) for row in answer.rows]


def test_every_millijoule_is_somewhere(store: SqliteStore, path: Path) -> None:
    answer = read_report(path, ask(path))
    assert [(row.keys, row.amount.energy_mj) for row in answer.rows] == [(("ml",), 37), (("",), 6)]
    assert (answer.idle.energy_mj, answer.unattributed.energy_mj) == (100, 9)
    assert (answer.total.energy_mj, answer.not_selected) == (152, None)


def test_time_and_mean_power_are_of_gpus_held(store: SqliteStore, path: Path) -> None:
    ml = read_report(path, ask(path)).rows[0].amount
    assert ml.held_ns == 3 * HOUR_NS
    assert ml.mean_w == pytest.approx(37e-3 / (3 * 3600))
    assert read_report(path, ask(path)).idle.mean_w is None


def test_jobs_are_those_that_ended(store: SqliteStore, path: Path) -> None:
    assert rows(path, "user") == [(("bob",), 30, 1), (("ann",), 7, 1), (("eve",), 6, 0)]
    assert rows(path, "day") == [(("2026-11-20",), 12, 1), (("2026-11-21",), 31, 1)]


def test_groups_within_groups_each_in_their_order(store: SqliteStore, path: Path) -> None:
    assert rows(path, "account", "day") == [
        (("ml", "2026-11-20"), 7, 1),
        (("ml", "2026-11-21"), 30, 1),
        (("", "2026-11-20"), 5, 0),
        (("", "2026-11-21"), 1, 0),
    ]
    assert [keys for keys, *_ in rows(path, "day", "account")] == [
        ("2026-11-20", "ml"),
        ("2026-11-20", ""),
        ("2026-11-21", "ml"),
        ("2026-11-21", ""),
    ]


def test_accounts_of_equal_energy_stay_apart(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        names = {1: ("a", "x"), 2: ("b", "x"), 3: ("a", "y"), 4: ("b", "y")}
        notes = tuple(note(job, account=account, user=user) for job, (account, user) in names.items())
        charge(store, "2026-11-20", Charges(A, dict.fromkeys(map(key, names), Millijoules(5))), notes=notes)
    assert [keys for keys, *_ in rows(path, "account", "user")] == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]


def test_only_the_days_asked_for(store: SqliteStore, path: Path) -> None:
    answer = read_report(path, ask(path, first="2026-11-20", last="2026-11-20"))
    assert (answer.total.energy_mj, answer.idle.energy_mj, answer.total.jobs) == (12, 0, 1)


def test_what_a_filter_leaves_out_is_still_in_the_total(store: SqliteStore, path: Path) -> None:
    answer = read_report(path, ask(path, "partition", account="m*", user="[ab]*"))
    assert [(row.keys, row.amount.energy_mj) for row in answer.rows] == [(("gpu",), 37)]
    assert answer.not_selected is not None
    assert (answer.not_selected.energy_mj, answer.total.energy_mj) == (6, 152)
    none = read_report(path, ask(path, account="nobody"))
    assert (none.rows, none.total.energy_mj) == ((), 152)


def test_is_read_while_the_agent_writes(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM days")
        assert read_report(path, ask(path)).total.energy_mj == 152
        writer.execute("ROLLBACK")
    charge(store, "2026-11-22", Charges(A, idle_mj=Millijoules(1)))
    assert read_report(path, ask(path)).total.energy_mj == 153


def test_the_file_stays_as_it_is(store: SqliteStore, path: Path) -> None:
    store.close()
    before = path.read_bytes()
    assert read_report(path, ask(path)).total.energy_mj == 152
    assert path.read_bytes() == before


def test_a_ledger_on_a_disk_that_takes_no_writes(store: SqliteStore, path: Path) -> None:
    """Where no write-ahead log is, nor can be made: here because a folder is in its place."""
    store.close()
    Path(f"{path}-shm").mkdir()
    assert read_report(path, ask(path)).total.energy_mj == 152


def test_errors_name_the_file_and_the_mend(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"none\.db: there is no ledger; name the agent's state_dir with --state-dir"):
        read_report(tmp_path / "none.db", ask(path))
    with pytest.raises(StoreError, match=r"nothing was metered from 2020-01-01 to 2020-01-02; .* 2026-11-20 to"):
        read_report(path, ask(path, first="2020-01-01", last="2020-01-02"))
    other = tmp_path / "other.db"
    other.write_text("not a database, but long enough to look like one" * 20)
    with pytest.raises(StoreError, match=r"other\.db: cannot read the ledger .*: is it|; is it Wattkeeper's state\.db"):
        read_report(other, ask(path))
    fresh = tmp_path / "fresh.db"
    SqliteStore(fresh).close()
    with pytest.raises(StoreError, match="still empty: has the agent run"):
        read_report(fresh, ask(path))


@pytest.mark.parametrize(
    ("version", "said"), [(0, "no ledger of"), (1, "an earlier Wattkeeper"), (schema.VERSION + 1, "a newer Wattkeeper")]
)
def test_ledgers_of_other_releases_are_refused(path: Path, version: int, said: str) -> None:
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(StoreError, match=said):
        read_report(path, ask(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_not_read_it_is_told_what_to_do(store: SqliteStore, path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from wattkeeper.ledger.report import *\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"try: read_report(Path({str(path)!r}), Question('2026-11-01', '2026-11-30'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith(f"StoreError {path}: permission denied; "), done.stdout + done.stderr
    assert "as root (sudo), or ask the cluster's Prometheus" in done.stdout


def test_a_job_is_found_by_root_and_its_owner(store: SqliteStore, path: Path) -> None:
    charge(store, "2026-11-22", notes=(note(2, run="r1", uid=7),))
    (mine,) = find_runs(path, 1, 1000)
    assert mine.usage[A].energy_mj == 7
    assert mine.note.gpus[A].cap_mw == 300_000
    assert (find_runs(path, 1, 1001), find_runs(path, 99, 0)) == ([], [])
    assert [record.note.facts.key.run for record in find_runs(path, 2, 0)] == ["r1", "r0"]
    assert [record.note.facts.key.run for record in find_runs(path, 2, 1000)] == ["r0"]


def test_no_ledger_knows_no_job(tmp_path: Path) -> None:
    assert find_runs(tmp_path / "state.db", 1, 0) == []


def test_many_jobs_sum_up(path: Path) -> None:
    jobs = 20_000
    make_ledger(path, jobs)
    answer, took_s = report_of_all(path, "user")
    assert sum(row.amount.energy_mj for row in answer.rows) == 1000 * jobs * (jobs + 1) // 2
    assert answer.total.jobs == jobs
    record(f"report by user over {jobs} jobs", took_s, 1.0)


def test_jobs_are_counted_in_the_order_of_their_index(path: Path) -> None:
    """Sorting a million jobs is what would take long."""
    make_ledger(path, 100)
    with closing(sqlite3.connect(path)) as db:
        plan = " ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {ENDED}", (FIRST_DAY, LAST_DAY)))
    assert "COVERING INDEX jobs_day" in plan
    assert "TEMP B-TREE" not in plan
