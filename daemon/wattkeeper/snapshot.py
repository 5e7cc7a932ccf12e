"""One immutable picture of the agent after each change. Metrics, sockets, CLI and messages are views of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from wattkeeper.model import Decision, GpuInfo, GpuReading, GpuUuid, JobFacts, JobKey, Target
from wattkeeper.units import Millijoules, Milliwatts

APPLY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.3, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class AdminHold:
    """An admin has taken this GPU out of the agent's hands until ``until_at`` (None: until ``resume``)."""

    reason: str
    since_at: float
    until_at: float | None


@dataclass(frozen=True, slots=True)
class GpuView:
    """One GPU. ``reading`` is None where it has not answered lately; ``error`` says why not, or why no write.

    ``ours``: we have written its limit since boot and not given it back. ``yielded``: left to another writer.
    """

    info: GpuInfo
    reading: GpuReading | None
    target: Target | None
    baseline_mw: Milliwatts | None
    holders: tuple[JobKey, ...]
    ours: bool
    hold: AdminHold | None = None
    yielded: bool = False
    error: str | None = None
    idle_mj: Millijoules = Millijoules(0)
    unattributed_mj: Millijoules = Millijoules(0)


@dataclass(frozen=True, slots=True)
class JobView:
    """One run of a job on this node, still here or finished within ``metrics.grace``.

    ``decisions`` by GPU are the present ones, or the last. ``message`` is the line for the user.
    """

    facts: JobFacts
    gpus: tuple[GpuUuid, ...]
    decisions: Mapping[GpuUuid, Decision]
    caps_mw: Mapping[GpuUuid, Milliwatts | None]
    energy_mj: Mapping[GpuUuid, Millijoules]
    started_at: float
    ended_at: float | None
    message: str

    @property
    def key(self) -> JobKey:
        """The run of the job."""
        return self.facts.key


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative counts per bucket of ``APPLY_BUCKETS_S``, with everything in ``count`` and ``sum_s``."""

    buckets: tuple[int, ...] = (0,) * len(APPLY_BUCKETS_S)
    count: int = 0
    sum_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What has been counted since the agent started; keys are the labels of the metric, in its order."""

    cap_writes: Mapping[str, int] = field(default_factory=dict)  # cause
    cap_write_errors: Mapping[tuple[int, str], int] = field(default_factory=dict)  # gpu, error
    hook_events: Mapping[tuple[str, str], int] = field(default_factory=dict)  # event, outcome
    requests: Mapping[str, int] = field(default_factory=dict)  # outcome
    drift: Mapping[tuple[int, str, str], int] = field(default_factory=dict)  # gpu, cause, outcome
    apply_seconds: Mapping[str, Histogram] = field(default_factory=dict)  # event


@dataclass(frozen=True, slots=True)
class PolicyState:
    """Which policy is in force, and whether the last reload was good."""

    digest: str
    reload_ok: bool
    reloaded_at: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SourceState:
    """A source of facts: whether its last reading worked, and how long that took in seconds."""

    up: bool
    read_s: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything there is to show. ``mode`` is enforce or observe; ``alarms`` are standing troubles in words."""

    at: float
    at_mono: float
    node: str
    cluster: str
    mode: str
    version: str
    interval_s: float
    gpus: tuple[GpuView, ...] = ()
    jobs: tuple[JobView, ...] = ()
    counters: Counters = Counters()
    policy: PolicyState = PolicyState("", True, 0.0)
    sources: Mapping[str, SourceState] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
