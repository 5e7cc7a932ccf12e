"""Changes to a ledger, in few words."""

from wattkeeper.model import (
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
from wattkeeper.units import Millijoules

A, B = GpuUuid("GPU-a"), GpuUuid("GPU-b")
DAY = 86_400.0
NOW = 1_000_000.0


def key(job_id: int, run: str = "r0") -> JobKey:
    return JobKey("cluster", job_id, run)


def facts(job_id: int, **more: object) -> JobFacts:
    return JobFacts(key(job_id), 1000, user="alice", **more)  # type: ignore[arg-type]


def holding(job_id: int, gpu: GpuUuid = A, share: Sharing = Sharing.WHOLE, **more: object) -> Holding:
    return Holding(facts(job_id, **more), gpu, share, 10.5, 20.25)


def charges(gpu: GpuUuid = A, idle: int = 0, nobodys: int = 0, **jobs: int) -> Charges:
    """``j7=5``: 5 mJ to job 7."""
    owners = {key(int(name[1:])): Millijoules(energy) for name, energy in jobs.items()}
    return Charges(gpu, owners, Millijoules(idle), Millijoules(nobodys))


def used(energy: int, **more: object) -> Usage:
    return Usage(Millijoules(energy), sources=frozenset({EnergySource.COUNTER}), **more)  # type: ignore[arg-type]


def mark(gpu: GpuUuid, energy: int, *owners: JobKey, mono: float = 6.25, boot: str = "boot-1") -> Watermark:
    return Watermark(EnergySample(gpu, Millijoules(energy), 5.5, mono, boot), owners)


def change(at: float = NOW, boot: str = "boot-1", **parts: object) -> Change:
    return Change(boot, at, **parts)  # type: ignore[arg-type]


def note(job_id: int, ended_at: float | None = None, started_at: float = NOW, **more: object) -> JobNote:
    known = {name: more.pop(name) for name in ("account", "partition", "qos", "comment", "job_name") if name in more}
    return JobNote(facts(job_id, **known), started_at, ended_at, **more)  # type: ignore[arg-type]
