"""Who holds which GPU: what a start or an end of a job changes. Idempotent by (job run, event)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from wattkeeper.model import SEEN_RUN, GpuUuid, Holding, JobFacts, JobKey, Sharing


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
    over: Collection[JobKey],
    slices: Mapping[GpuUuid, int] | None = None,
) -> Transition:
    """A job starts on this node and holds ``gpus``, or so many ``slices`` of compute of some.

    On a GPU without shard, MPS or MIG there is one holder: whoever held it has ended, on all its GPUs, though its
    Epilog never came. An earlier run of the same job has ended too.
    """
    known = (*(holding.job.key for holding in holdings), *over)
    if job.key in over or any(job.key.job_id == key.job_id and older_run(job.key, key) for key in known):
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


def _ended_by(held: JobKey, key: JobKey) -> bool:
    return held in {key, replace(key, run=SEEN_RUN)} or older_run(held, key)


def _same_job(one: JobKey, other: JobKey) -> bool:
    return (one.cluster, one.job_id) == (other.cluster, other.job_id)


def end(key: JobKey, when: Moment, holdings: Sequence[Holding], over: Collection[JobKey]) -> Transition:
    """A run of a job ends on this node, by an Epilog that began at ``when``.

    The Epilog of a requeued run carries the *next* run's restart count (Slurm 22.05, see docs/decisions), so it ends
    what the node holds for the job: that run or earlier ones, never a later one, and never one that began after the
    Epilog did. Only where it can be no earlier run's Epilog does it also close the door to its own run's Prolog.
    """
    same = [h for h in holdings if _same_job(h.job.key, key) and not older_run(key, h.job.key)]
    # a run that was given another GPU since is as old as its first: it ends on all of them, or on none
    began = {run: min(h.since_mono for h in same if h.job.key == run) for run in {h.job.key for h in same}}
    # at the same moment is before: an Epilog that waited has the time of a clock that ticks a hundred times a second
    removed = tuple(h for h in same if began[h.job.key] <= when.mono and _ended_by(h.job.key, key))
    if not removed and (same or key in over):
        return Transition(Verdict.DUPLICATE if key in over else Verdict.LATE)
    over_now = {h.job.key for h in removed}
    if not removed and (key.run == "r0" or not key.run.startswith("r")):
        over_now.add(key)
    return Transition(Verdict.ENDED if removed else Verdict.UNKNOWN_JOB, removed=removed, over=tuple(sorted(over_now)))
