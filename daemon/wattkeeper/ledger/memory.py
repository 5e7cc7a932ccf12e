"""The ledger in memory: for tests, and for what needs no file. It forgets when the process ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from wattkeeper.core.attribute import added
from wattkeeper.errors import StoreError
from wattkeeper.ledger import schema
from wattkeeper.ledger.rows import account_of
from wattkeeper.ledger.writing import fresh
from wattkeeper.model import Account, Charges, GpuUuid, Holding, JobKey, Usage, Watermark
from wattkeeper.protocols import Change, GpuNote, JobNote, JobRecord, Kept
from wattkeeper.snapshot import AdminHold
from wattkeeper.units import Millijoules


@dataclass(slots=True)
class _Job:
    """A run: its note, what it got and used on each GPU, when that was last charged."""

    note: JobNote | None = None
    gpus: dict[GpuUuid, GpuNote] = field(default_factory=dict)
    usage: dict[GpuUuid, Usage] = field(default_factory=dict)
    charged_at: dict[GpuUuid, float] = field(default_factory=dict)
    recorded: bool = False


class MemoryStore:
    """The ``Store`` without a file."""

    def __init__(self) -> None:
        self._boot_id: str | None = None
        self._at = 0.0
        self._holdings: dict[tuple[JobKey, GpuUuid], Holding] = {}
        self._over: dict[JobKey, float] = {}
        self._watermarks: dict[GpuUuid, Watermark] = {}
        self._jobs: dict[JobKey, _Job] = {}
        self._accounts: dict[Account, tuple[int, float]] = {}
        self._idle: dict[GpuUuid, Millijoules] = {}
        self._unattributed: dict[GpuUuid, Millijoules] = {}
        self._holds: dict[GpuUuid, AdminHold] = {}
        self._closed = False

    def load(self) -> Kept:
        """What was kept."""
        self._check()
        holders = {key for key, _ in self._holdings}
        held = {account_of(job.note.facts) for key in holders if (job := self._jobs.get(key)) and job.note}
        accounts = {
            account: total
            for account, total in self._accounts.items()
            if total[1] >= self._at - schema.ACCOUNT_S or account in held
        }
        return Kept(
            boot_id=self._boot_id,
            holdings=tuple(self._holdings.values()),
            over=dict(self._over),
            watermarks=dict(self._watermarks),
            usage={
                (key, gpu): usage
                for key, job in self._jobs.items()
                for gpu, usage in job.usage.items()
                if key in holders or job.charged_at[gpu] >= self._at - schema.RECENT_S
            },
            accounts_mj={account: Millijoules(energy) for account, (energy, _) in accounts.items()},
            accounts_at={account: last_at for account, (_, last_at) in accounts.items()},
            resting_mj={
                account: Millijoules(energy)
                for account, (energy, _) in self._accounts.items()
                if account not in accounts
            },
            idle_mj=dict(self._idle),
            unattributed_mj=dict(self._unattributed),
            holds=dict(self._holds),
        )

    def commit(self, change: Change) -> None:
        """Take a change over."""
        self._check()
        self._boot_id, self._at = change.boot_id, change.at
        for holding in change.removed:
            self._holdings.pop((holding.job.key, holding.gpu), None)
        for holding in change.added:
            self._holdings.pop((holding.job.key, holding.gpu), None)  # the latest comes last
            self._holdings[holding.job.key, holding.gpu] = holding
            job = self._begin(holding.job.key, holding.since_at)
            job.note = job.note or JobNote(holding.job, holding.since_at)
        for note in change.notes:
            self._note(note, change.at)
        marks = {gpu: (mark.sample.boot_id, mark.sample.at_mono) for gpu, mark in self._watermarks.items()}
        charges, watermarks = fresh(change, marks)
        for charge in charges:
            self._charge(charge, charge.at or change.at)
        if change.over:
            self._end(change)
        self._watermarks.update({watermark.sample.gpu: watermark for watermark in watermarks})
        for gpu, hold in change.holds.items():
            if hold is None:
                self._holds.pop(gpu, None)
            else:
                self._holds[gpu] = hold

    def unrecorded(self) -> Sequence[JobRecord]:
        """Ended runs whose record has not been noted, oldest first, at most ``schema.RECORDED_AT_ONCE``."""
        self._check()
        ended = [
            (job.note.ended_at, JobRecord(replace(job.note, gpus=dict(job.gpus)), dict(job.usage)))
            for job in self._jobs.values()
            if job.note and job.note.ended_at is not None and not job.recorded
        ]
        return [record for _, record in sorted(ended, key=lambda entry: entry[0])][: schema.RECORDED_AT_ONCE]

    def note_recorded(self, keys: Sequence[JobKey]) -> None:
        """Their records are written."""
        self._check()
        for key in keys:
            job = self._jobs.get(key)
            if job and job.note and job.note.ended_at is not None:
                job.recorded = True

    def prune(self, before_at: float) -> int:
        """Forget recorded jobs that ended earlier; how many."""
        self._check()
        old = [
            key
            for key, job in self._jobs.items()
            if job.recorded and job.note and job.note.ended_at is not None and job.note.ended_at < before_at
        ]
        for key in old[: schema.PRUNED_AT_ONCE]:
            del self._jobs[key]
        return min(len(old), schema.PRUNED_AT_ONCE)

    def close(self) -> None:
        """Nothing may follow."""
        self._closed = True

    def _begin(self, key: JobKey, started_at: float) -> _Job:
        job = self._jobs.get(key)
        if job and job.recorded and job.note and (job.note.ended_at or 0.0) < started_at:
            del self._jobs[key]
        return self._jobs.setdefault(key, _Job())

    def _note(self, note: JobNote, at: float) -> None:
        job = self._begin(note.facts.key, note.started_at)
        if not job.recorded:
            ended_at = job.note.ended_at if job.note and job.note.ended_at is not None else note.ended_at
            job.note = replace(note, ended_at=ended_at)
        for uuid, gpu in note.gpus.items():
            before = job.gpus.get(uuid)
            job.gpus[uuid] = replace(gpu, cap_mw=before.cap_mw) if before and gpu.cap_mw is None else gpu
        account = account_of(note.facts)
        energy, last_at = self._accounts.get(account, (0, at))
        self._accounts[account] = energy, max(last_at, at)

    def _charge(self, charges: Charges, at: float) -> None:
        gpu = charges.gpu
        for key, energy in charges.jobs_mj.items():
            job = self._jobs.setdefault(key, _Job())
            job.usage[gpu] = added(job.usage.get(gpu), energy, charges)
            job.charged_at[gpu] = at
            account = account_of(job.note.facts) if job.note else ("", "")
            self._accounts[account] = self._accounts.get(account, (0, 0.0))[0] + energy, at
        if charges.idle_mj or charges.unattributed_mj:
            self._idle[gpu] = Millijoules(self._idle.get(gpu, 0) + charges.idle_mj)
            self._unattributed[gpu] = Millijoules(self._unattributed.get(gpu, 0) + charges.unattributed_mj)

    def _end(self, change: Change) -> None:
        for key in change.over:
            self._over[key] = max(self._over.get(key, change.at), change.at)
            job = self._jobs.get(key)
            if job and job.note and job.note.ended_at is None:
                ended_at = max(job.charged_at.values(), default=change.at)
                job.note = replace(job.note, ended_at=max(job.note.started_at, ended_at))
        kept = [(key, at) for key, at in self._over.items() if at >= change.at - schema.OVER_KEPT_S]
        kept.sort(key=lambda entry: entry[1])  # stable: of two at the same time the later one stays
        self._over = dict(kept[-schema.OVER_KEPT :])

    def _check(self) -> None:
        if self._closed:
            raise StoreError("the ledger in memory has been closed; open a new one")
