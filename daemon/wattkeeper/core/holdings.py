"""Who holds which GPU: what a start or an end of a job changes. Idempotent by (job run, event)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from wattkeeper.model import GpuUuid, Holding, JobFacts, JobKey, Sharing

LATE_S = 300.0
"""What is told of a run later than this after its end is of another one: a cluster set up anew counts from 1 again."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When an event happened: Unix time for the record, seconds of the boot-time clock for the order."""

    at: float
    mono: float


class Verdict(StrEnum):
    """What an event of a job came to."""

    STARTED = "started"
    ENDED = "ended"
    DUPLICATE = "duplicate"  # said before: nothing changes
    LATE = "late"  # a start after its own end, or of a run that a newer one has replaced
    UNKNOWN_JOB = "unknown_job"  # an end without a start: normal


@dataclass(frozen=True, slots=True)
class Transition:
    """The change an event makes: holdings that end, holdings that begin, runs that are over from now on."""

    verdict: Verdict
    removed: tuple[Holding, ...] = ()
    added: tuple[Holding, ...] = ()
    over: tuple[JobKey, ...] = ()
    superseded: tuple[JobKey, ...] = ()

    @property
    def gpus(self) -> frozenset[GpuUuid]:
        """The GPUs whose holders change."""
        return frozenset(holding.gpu for holding in (*self.removed, *self.added))


def older_run(one: JobKey, other: JobKey) -> bool:
    """True where ``one`` is surely an earlier run of the same job: both count restarts, and it counts fewer."""
    if (one.cluster, one.job_id) != (other.cluster, other.job_id):
        return False
    counts = [key.run[1:] for key in (one, other) if key.run.startswith("r") and key.run[1:].isdecimal()]
    return len(counts) == 2 and int(counts[0]) < int(counts[1])


def begin(
    job: JobFacts,
    gpus: Mapping[GpuUuid, Sharing],
    when: Moment,
    holdings: Sequence[Holding],
    over: Mapping[JobKey, float],
    slices: Mapping[GpuUuid, int] | None = None,
) -> Transition:
    """A job starts on this node and holds ``gpus``, or so many ``slices`` of compute of some.

    ``over``: when runs ended, by the boot-time clock. A start within ``LATE_S`` of its run's end, or before, is late.

    On a GPU without shard, MPS or MIG there is one holder: whoever held it has ended, on all its GPUs, though its
    Epilog never came. An earlier run of the same job has ended too.
    """
    ended = _lately_over(job.key, when, over)
    if job.key in ended or any(older_run(job.key, key) for key in (*ended, *(h.job.key for h in holdings))):
        return Transition(Verdict.LATE)
    mine = {holding.gpu: holding for holding in holdings if holding.job.key == job.key}
    if {h.gpu: h.share for h in mine.values()} == dict(gpus) and all(h.job == job for h in mine.values()):
        return Transition(Verdict.DUPLICATE)
    gone = {
        holding.job.key
        for holding in holdings
        if holding.job.key != job.key and (_displaced(holding, gpus) or _same_job(holding.job.key, job.key))
    }
    parts = slices or {}
    added = tuple(
        Holding(job, gpu, share, mine[gpu].since_at, mine[gpu].since_mono, parts.get(gpu, 0))
        if gpu in mine
        else Holding(job, gpu, share, when.at, when.mono, parts.get(gpu, 0))
        for gpu, share in gpus.items()
    )
    removed = tuple(h for h in holdings if h.job.key in gone or h.job.key == job.key)
    return Transition(Verdict.STARTED, removed, added, over=tuple(sorted(gone)), superseded=tuple(sorted(gone)))


def _displaced(holding: Holding, gpus: Mapping[GpuUuid, Sharing]) -> bool:
    return gpus.get(holding.gpu) is Sharing.WHOLE


def _lately_over(key: JobKey, when: Moment, over: Mapping[JobKey, float]) -> set[JobKey]:
    """The runs of a job that, at a moment, have ended not long ago, or have yet to."""
    return {run for run, ended in over.items() if _same_job(run, key) and when.mono <= ended + LATE_S}


def _same_job(one: JobKey, other: JobKey) -> bool:
    return one.job_id == other.job_id and one.cluster == other.cluster


def end(key: JobKey, when: Moment, holdings: Sequence[Holding], over: Mapping[JobKey, float]) -> Transition:
    """A run of a job ends on this node, by an Epilog that began at ``when``.

    What an Epilog calls its run is not always what the Prolog did (see docs/decisions): after a requeue it has the
    *next* run's restart count, after an upgrade of Slurm a SLUID in the place of one. So it ends what the node holds
    for the job, by whatever name, but never a run that is surely later, and never one that began after the Epilog did.
    Told again it ends nothing. Only where it can be no earlier run's does it also close the door to its own Prolog.
    """
    ended = _lately_over(key, when, over)
    if key in ended:
        return Transition(Verdict.DUPLICATE)
    same = [h for h in holdings if _same_job(h.job.key, key) and not older_run(key, h.job.key)]
    # a run that was given another GPU since is as old as its first: it ends on all of them, or on none
    began = {run: min(h.since_mono for h in same if h.job.key == run) for run in {h.job.key for h in same}}
    # at the same moment is before: an Epilog that waited has the time of a clock that ticks a hundred times a second
    removed = tuple(h for h in same if began[h.job.key] <= when.mono)
    if removed:
        return Transition(Verdict.ENDED, removed=removed, over=tuple(sorted({h.job.key for h in removed})))
    if same:
        return Transition(Verdict.LATE)
    is_its_own = not ended and (key.run == "r0" or not key.run.startswith("r"))
    return Transition(Verdict.UNKNOWN_JOB, over=(key,) if is_its_own else ())
