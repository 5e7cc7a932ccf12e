"""A change, written to the tables: within a transaction that somebody else began and ends."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from wattkeeper.ledger import schema
from wattkeeper.ledger import statements as sql
from wattkeeper.ledger.rows import (
    Key,
    account_of,
    facts_to_text,
    key_row,
    local_day,
    owners_to_text,
    summed,
    to_bits,
)
from wattkeeper.model import Basis, Charges, EnergySource, GpuUuid, Watermark
from wattkeeper.protocols import Change, JobNote
from wattkeeper.snapshot import AdminHold

Owner = tuple[str, str, str]
"""Whom energy is charged to: account, partition, user."""

_NOBODY: Owner = ("", "", "")
_MOST_OWNERS = 10_000


class Writer:
    """Writes changes. Remembers who owns which run; whoever rolls a transaction back calls ``forget``."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._owners: dict[Key, Owner] = {}

    def forget(self) -> None:
        """Ask the tables again."""
        self._owners.clear()

    def write(self, change: Change) -> None:
        """Write a change. Raises sqlite3.Error, OverflowError or UnicodeError; the transaction is rolled back then."""
        db = self._db
        db.execute(sql.UPSERT_META, (change.boot_id, change.at))
        self._write_holdings(change)
        self._write_notes(change)
        marks = {uuid: (boot_id, at_mono) for uuid, boot_id, at_mono in db.execute(sql.SELECT_MARKS)}
        charges, watermarks = fresh(change, marks)
        self._charge(charges, change.at)
        if change.over:
            self._end(change)
        db.executemany(
            sql.UPSERT_WATERMARK,
            [
                (s.gpu, s.energy_mj, s.at, s.at_mono, s.boot_id, owners, s.source.value, s.power_mw, s.capped_ns)
                for s, owners in ((w.sample, owners_to_text(w.owners)) for w in watermarks)
            ],
        )
        self._write_holds(change.holds)

    def prune(self, before_at: float) -> int:
        """Delete recorded jobs that ended earlier, at most ``schema.PRUNED_AT_ONCE``, and days before; how many jobs.

        Energy of runs of which nothing else is known goes too, once the last job has. Raises sqlite3.Error.
        """
        db, day = self._db, local_day(before_at)
        keys = db.execute(sql.PRUNED_JOBS, (day, before_at, schema.PRUNED_AT_ONCE)).fetchall()
        db.executemany(sql.DELETE_JOB_ENERGY, keys)
        db.executemany(sql.DELETE_JOB, keys)
        if len(keys) < schema.PRUNED_AT_ONCE:
            db.execute(sql.PRUNE_JOBLESS_ENERGY, (before_at,))
            for statement in sql.PRUNE_DAYS:
                db.execute(statement, (day,))
        self.forget()
        return len(keys)

    def _write_holdings(self, change: Change) -> None:
        db = self._db
        db.executemany(sql.DELETE_HOLDING, [(*key_row(h.job.key), h.gpu) for h in change.removed])
        for h in change.added:
            text, key = facts_to_text(h.job), h.job.key
            row = (key.cluster, key.job_id, key.run, h.gpu, text, h.share.value, h.since_at, h.since_mono, h.slices)
            db.execute(sql.UPSERT_HOLDING, row)
            self._make_room(key_row(key), h.since_at)
            job = (*key_row(key), h.job.uid, summed(h.job.user), *account_of(h.job), h.since_at, text)
            db.execute(sql.INSERT_HELD_JOB, job)
            self._owners.pop(key_row(key), None)

    def _write_notes(self, change: Change) -> None:
        for note in change.notes:
            self._write_note(note, change.at)

    def _write_note(self, note: JobNote, at: float) -> None:
        db, facts, key = self._db, note.facts, key_row(note.facts.key)
        owner = (*account_of(facts), summed(facts.user))
        day = None if note.ended_at is None else local_day(note.ended_at)
        told = (note.started_at, note.ended_at, day, _text(note.asked), note.outcome.value, _text(note.rule))
        self._make_room(key, note.started_at)
        db.execute(sql.UPSERT_JOB, (*key, facts.uid, owner[2], *owner[:2], *told, facts_to_text(facts)))
        db.executemany(
            sql.UPSERT_JOB_GPU, [(*key, uuid, at, g.minor, g.model, g.cap_mw) for uuid, g in note.gpus.items()]
        )
        db.execute(sql.TOUCH_ACCOUNT, (*owner[:2], at))
        self._owners.pop(key, None)

    def _make_room(self, key: Key, started_at: float) -> None:
        """Forget a recorded run of the same name that ended before: its record and its day's sums stay."""
        self._db.execute(sql.DELETE_REUSED_ENERGY, (*key, *key, started_at))
        self._db.execute(sql.DELETE_REUSED, (*key, started_at))

    def _charge(self, charges: Sequence[Charges], changed_at: float) -> None:
        jobs, days = [], defaultdict[tuple[str, *Owner], list[int]](lambda: [0, 0])
        accounts: dict[tuple[str, str], tuple[int, float]] = {}
        for c in charges:
            at, bases = c.at or changed_at, to_bits(Basis, [c.basis] if c.basis else [])
            source = to_bits(EnergySource, [c.source])
            for run, energy_mj in c.jobs_mj.items():
                key = key_row(run)
                jobs.append((*key, c.gpu, energy_mj, at, c.held_ns, c.capped_ns, c.power_mw, bases, source))
                account, partition, user = self._owner(key)
                day = days[local_day(at), account, partition, user]
                day[0] += energy_mj
                day[1] += c.held_ns
                accounts[account, partition] = accounts.get((account, partition), (0, 0.0))[0] + energy_mj, at
        db = self._db
        db.executemany(sql.ADD_JOB_ENERGY, jobs)
        db.executemany(sql.ADD_DAY, [(*names, *sums) for names, sums in days.items()])
        db.executemany(sql.ADD_ACCOUNT, [(*names, *total) for names, total in accounts.items()])
        self._charge_nobody(charges, changed_at)

    def _charge_nobody(self, charges: Iterable[Charges], changed_at: float) -> None:
        nobodys = [c for c in charges if c.idle_mj or c.unattributed_mj]
        if not nobodys:
            return
        self._db.executemany(sql.ADD_GPU_ENERGY, [(c.gpu, c.idle_mj, c.unattributed_mj) for c in nobodys])
        days = defaultdict[str, list[int]](lambda: [0, 0])
        for c in nobodys:
            day = days[local_day(c.at or changed_at)]
            day[0] += c.idle_mj
            day[1] += c.unattributed_mj
        self._db.executemany(sql.ADD_GPU_DAY, [(day, *sums) for day, sums in days.items()])

    def _owner(self, key: Key) -> Owner:
        owner = self._owners.get(key)
        if owner is None:
            if len(self._owners) >= _MOST_OWNERS:
                self._owners.clear()
            owner = self._owners[key] = self._db.execute(sql.SELECT_OWNER, key).fetchone() or _NOBODY
        return owner

    def _end(self, change: Change) -> None:
        """Remember runs as ended. One whose end no note tells has ended when it was last charged.

        Never before it began, though: a clock that was set back would make it a run of before.
        """
        db = self._db
        db.executemany(sql.UPSERT_OVER, [(*key_row(key), change.at) for key in change.over])
        db.execute(sql.PRUNE_OVER_BY_AGE, (change.at - schema.OVER_KEPT_S,))
        db.execute(sql.PRUNE_OVER_BY_COUNT, (schema.OVER_KEPT,))
        for key in map(key_row, change.over):
            (charged_at,) = db.execute(sql.LAST_CHARGED, key).fetchone()
            at = change.at if charged_at is None else charged_at
            for (started_at,) in db.execute(sql.SELECT_UNENDED, key).fetchall():
                ended_at = max(started_at, at)
                db.execute(sql.END_JOB, (ended_at, local_day(ended_at), *key))

    def _write_holds(self, holds: Mapping[GpuUuid, AdminHold | None]) -> None:
        for gpu, hold in holds.items():
            if hold is None:
                self._db.execute(sql.DELETE_HOLD, (gpu,))
            else:
                self._db.execute(sql.UPSERT_HOLD, (gpu, hold.reason, hold.since_at, hold.until_at))


def fresh(change: Change, marks: Mapping[GpuUuid, tuple[str, float]]) -> tuple[Sequence[Charges], Sequence[Watermark]]:
    """The charges and watermarks of a change that are not in the ledger yet.

    ``marks``: of each GPU the boot and the monotonic time of the ledger's watermark. A GPU whose watermark there is
    the change's, or a later one, was charged when this change, or one that came after it, was written: the answer got
    lost on its way, and the change came again. That the owners have changed since the ledger's watermark is news all
    the same, and stays so however often it comes.
    """
    charged, stale = set(), set()
    for w in change.watermarks:
        boot_id, at_mono = marks.get(w.sample.gpu, (None, 0.0))
        if boot_id == w.sample.boot_id and w.sample.at_mono <= at_mono:
            charged.add(w.sample.gpu)
            if w.sample.at_mono < at_mono or w.owners is not None:
                stale.add(w.sample.gpu)
    if not charged:
        return change.charges, change.watermarks
    return (
        [c for c in change.charges if c.gpu not in charged],
        [w for w in change.watermarks if w.sample.gpu not in stale],
    )


def _text(text: str | None) -> str | None:
    return None if text is None else summed(text)
