"""Questions to ``state.db`` that change nothing in it: energy by account, and what one run of a job used.

The file is opened for reading only. An agent that writes it meanwhile neither waits nor makes anybody wait (SQLite's
write-ahead log), and each answer is of one moment.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from wattkeeper.core.match import fits_glob
from wattkeeper.errors import StoreError
from wattkeeper.ledger import schema
from wattkeeper.ledger.rows import read_records
from wattkeeper.protocols import JobRecord
from wattkeeper.units import Millijoules

Field = Literal["account", "user", "partition", "day"]
FIELDS: tuple[Field, ...] = ("account", "user", "partition", "day")

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

BUSY_TIMEOUT_S = 2.0
MOST_RUNS = 100
"""A job that was requeued more often is told of by so many of its runs."""

STEPS_A_CALL = 200_000
"""``progress`` is called every so many instructions of SQLite's machine: some ten times a second."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Energy, and what it is made of. ``held_ns``: time of GPUs, a GPU that two jobs held counting twice.

    ``jobs``: runs of jobs that ended. None where the source does not tell.
    """

    energy_mj: Millijoules = Millijoules(0)
    held_ns: int | None = None
    jobs: int | None = None

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            Millijoules(self.energy_mj + other.energy_mj),
            _sum(self.held_ns, other.held_ns),
            _sum(self.jobs, other.jobs),
        )

    @property
    def mean_w(self) -> float | None:
        """Mean power of a GPU while it was held, in watts."""
        return self.energy_mj * 1e6 / self.held_ns if self.held_ns else None


@dataclass(frozen=True, slots=True)
class Row:
    """What one group used. ``keys`` are the values of the fields it is grouped by, in their order."""

    keys: tuple[str, ...]
    amount: Amount


@dataclass(frozen=True, slots=True)
class Question:
    """Which days (``YYYY-MM-DD``, both included), grouped by what, and of whom.

    ``globs``: of each field that is named one must fit.
    """

    first_day: str
    last_day: str
    by: tuple[Field, ...] = ("account",)
    globs: Mapping[Field, tuple[str, ...]] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every field that an answer needs."""
        return tuple(name for name in FIELDS if name in self.by or name in self.globs)

    def selects(self, values: Mapping[Field, str]) -> bool:
        """Whether jobs with these values are asked about."""
        return all(any(fits_glob(glob, values[name]) for glob in globs) for name, globs in self.globs.items())


@dataclass(frozen=True, slots=True)
class Report:
    """The answer. Rows, ``not_selected``, ``idle`` and ``unattributed`` together are all that the GPUs used.

    ``not_selected`` is None where the question was about everybody. ``metered_since`` is the first of the days asked
    about of which any energy is known, None where of none. ``cluster`` is empty where the source names none.
    """

    question: Question
    origin: str
    rows: tuple[Row, ...]
    not_selected: Amount | None
    idle: Amount
    unattributed: Amount
    metered_since: str | None = None
    cluster: str = ""

    @property
    def total(self) -> Amount:
        """All that the GPUs used."""
        parts = [row.amount for row in self.rows] + ([self.not_selected] if self.not_selected else [])
        whole = sum_of(parts)
        nobodys = self.idle.energy_mj + self.unattributed.energy_mj
        return Amount(Millijoules(whole.energy_mj + nobodys), whole.held_ns, whole.jobs)


def sum_of(parts: list[Amount]) -> Amount:
    """The sum of several amounts."""
    whole = Amount()
    for part in parts:
        whole += part
    return whole


Part = tuple[Sequence[str], int, int | None, int | None]
"""Values of the fields that are asked for, and an amount: energy in millijoules, time held in nanoseconds, jobs."""


def grouped(question: Question, names: Sequence[Field], parts: Iterable[Part]) -> tuple[list[Row], Amount | None]:
    """Amounts by ``names``, as the rows that a question wants; and what it did not select.

    Days are in their order, all else by energy, what used most first, at each level of grouping.
    """
    places = [names.index(name) for name in question.by]
    sums: dict[tuple[str, ...] | None, list[int | None]] = {}
    for values, *figures in parts:
        selected = not question.globs or question.selects(dict(zip(names, values, strict=True)))
        keys = tuple([values[place] for place in places]) if selected else None
        known = sums.get(keys)
        sums[keys] = figures if known is None else [_sum(*pair) for pair in zip(known, figures, strict=True)]
    left = sums.pop(None, [0, None, None])
    rows = [Row(keys, _amount(*figures)) for keys, figures in sums.items() if keys is not None]
    return _in_order(question, rows), _amount(*left) if question.globs else None


def _in_order(question: Question, rows: Iterable[Row], depth: int = 0) -> list[Row]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.keys[depth], []).append(row)
    if question.by[depth] == "day":
        names = sorted(groups)
    else:
        sums = {name: -sum(row.amount.energy_mj for row in group) for name, group in groups.items()}
        names = sorted(groups, key=lambda name: (sums[name], name))
    if depth + 1 == len(question.by):
        return [row for name in names for row in groups[name]]
    return [row for name in names for row in _in_order(question, groups[name], depth + 1)]


def read_report(path: Path, question: Question, progress: Callable[[], None] | None = None) -> Report:
    """Ask the ledger in a file. Raises StoreError with the mend, also where it knows nothing of those days."""
    with _reading(path) as db:
        if progress is not None:
            db.set_progress_handler(progress, STEPS_A_CALL)
        rows, left = grouped(question, question.fields, _amounts(db, question))
        days = (question.first_day, question.last_day)
        nobodys = db.execute("SELECT SUM(idle_mj), SUM(unattributed_mj) FROM gpu_days WHERE day BETWEEN ? AND ?", days)
        idle, unattributed = nobodys.fetchone()
        if idle is None and not rows and not (left and left.energy_mj):
            raise StoreError(f"{path}: nothing was metered from {days[0]} to {days[1]}; {_known_days(db)}")
        since = db.execute(_FIRST_DAY, 2 * days).fetchone()[0]
    idle, unattributed = (Amount(Millijoules(mj or 0)) for mj in (idle, unattributed))
    return Report(question, str(path), tuple(rows), left, idle, unattributed, since)


def set_aside(path: Path) -> list[Path]:
    """Damaged ledgers beside a ledger, which the agent set aside to begin that one; the oldest first."""
    found = path.parent.glob(f"{path.name}{schema.ASIDE}*")
    return sorted(aside for aside in found if not aside.name.endswith(("-wal", "-shm")))


def find_runs(path: Path, job_id: int, uid: int) -> list[JobRecord]:
    """The runs of a job that the ledger knows and that user may see (root, and the job's owner), the newest first.

    At most ``MOST_RUNS``; none also where there is no ledger. Raises StoreError for one that cannot be read.
    """
    if not path.exists():
        return []
    with _reading(path) as db:
        where = "job_id = ? AND ? IN (0, uid) ORDER BY ended_at IS NULL DESC, started_at DESC LIMIT ?"
        try:
            return read_records(db, where, (job_id, uid, MOST_RUNS))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: the row of job {job_id} makes no sense ({error!r})") from None


_CHARGED = "SELECT day, account, partition, user, energy_mj, held_ns, 0 AS ended FROM days WHERE day BETWEEN ? AND ?"
ENDED = """SELECT day, account, partition, user, 0, 0, COUNT(*) FROM jobs WHERE day BETWEEN ? AND ?
    GROUP BY day, account, partition, user"""
"""In the order of the index jobs_day, which sorts nothing: a million jobs are counted in some 0.3 s."""

_FIRST_DAY = """SELECT MIN(day) FROM (SELECT MIN(day) AS day FROM days WHERE day BETWEEN ? AND ?
    UNION ALL SELECT MIN(day) FROM gpu_days WHERE day BETWEEN ? AND ?)"""


def _amounts(db: sqlite3.Connection, question: Question) -> Iterator[Part]:
    """What was charged, and which jobs ended, by every field that the question needs."""
    lead = "".join(f"{name}, " for name in question.fields)
    group = f"GROUP BY {lead.removesuffix(', ')}" if lead else ""
    sums = f"SELECT {lead}SUM(energy_mj), SUM(held_ns), SUM(ended) FROM ({_CHARGED} UNION ALL {ENDED}) {group}"  # noqa: S608
    for *values, energy_mj, held_ns, ended in db.execute(sums, 2 * (question.first_day, question.last_day)):
        if energy_mj is not None:
            yield values, energy_mj, held_ns, ended


def _known_days(db: sqlite3.Connection) -> str:
    days = "SELECT day FROM days UNION ALL SELECT day FROM gpu_days"
    first, last = db.execute(f"SELECT MIN(day), MAX(day) FROM ({days})").fetchone()  # noqa: S608
    if not first:
        return "this ledger is still empty: has the agent run for 10 s?"
    return f"this ledger knows {first} to {last}"


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in one read transaction. Raises StoreError with the mend."""
    _check_readable(path)
    try:
        with closing(_connect(path)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != schema.VERSION:
                raise StoreError(f"{path}: {_other_version(version)}")
            db.execute("BEGIN")
            yield db
    except sqlite3.Error as error:
        raise StoreError(f"{path}: cannot read the ledger ({error}); {_mend(error)}") from None


def _mend(error: sqlite3.Error) -> str:
    mend = "is it Wattkeeper's state.db?"
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
        mend += " The agent sets a damaged one aside, at its next start at the latest; records/ has the jobs too"
    return mend


def _connect(path: Path) -> sqlite3.Connection:
    """The file for reading. A write-ahead log is read with it where there is one.

    Where there is none and none can be made, as on a disk mounted read-only, the file alone is whole.
    """
    place = f"file:{quote(str(path.absolute()))}?mode=ro"
    db = sqlite3.connect(place, BUSY_TIMEOUT_S, uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        db.close()
        if Path(f"{path}-wal").exists():
            raise
        db = sqlite3.connect(f"{place}&immutable=1", BUSY_TIMEOUT_S, uri=True, isolation_level=None)
    return db


def _check_readable(path: Path) -> None:
    """Not by opening it: in the agent's process that would end, at the closing, the locks of its own connection."""
    try:
        path.stat()
        readable = os.access(path, os.R_OK, effective_ids=True)
    except FileNotFoundError:
        mend = "name the agent's state_dir with --state-dir; has the agent run on this node?"
        raise StoreError(f"{path}: there is no ledger; {mend}") from None
    except PermissionError:
        readable = False
    except OSError as error:
        raise StoreError(f"{path}: cannot read the ledger ({error.strerror})") from None
    if not readable:
        mend = "it has every user's jobs: read it as root (sudo), or ask the cluster's Prometheus (--prometheus URL)"
        raise StoreError(f"{path}: permission denied; {mend}")


def _other_version(version: int) -> str:
    known = f"version {version}, this command knows {schema.VERSION}"
    if version == 0:
        return "this is no ledger of Wattkeeper's; name the agent's state_dir with --state-dir"
    if version > schema.VERSION:
        return f"a newer Wattkeeper wrote this ledger ({known}); use its own command"
    return f"an earlier Wattkeeper wrote this ledger ({known}); start the agent once, which brings it up to date"


def _amount(energy_mj: int | None, held_ns: int | None, jobs: int | None) -> Amount:
    return Amount(Millijoules(energy_mj or 0), held_ns, jobs)


def _sum(one: int | None, other: int | None) -> int | None:
    """The sum of what is known; None where neither is."""
    return other if one is None else one if other is None else one + other
