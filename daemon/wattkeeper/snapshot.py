"""One immutable picture of the agent after each change. Metrics, sockets, CLI and messages are views of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo

from wattkeeper.model import Account, Decision, GpuInfo, GpuReading, GpuUuid, JobFacts, JobKey, Target, Usage
from wattkeeper.units import Millijoules, Milliwatts

STALE_AFTER_INTERVALS = 3
STALE_AFTER_AT_LEAST_S = 3.0
APPLY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.3, 0.5, 1.0, 2.0)


def fresh_s(interval_s: float) -> float:
    """For how many seconds a reading says how things are, where one is made every ``interval_s``."""
    return max(STALE_AFTER_INTERVALS * interval_s, STALE_AFTER_AT_LEAST_S)


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
    ``idle_mj`` and ``unattributed_mj`` are None where it has never told what it uses, or the ledger cannot be read yet.
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
    idle_mj: Millijoules | None = Millijoules(0)
    unattributed_mj: Millijoules | None = Millijoules(0)


@dataclass(frozen=True, slots=True)
class CapView:
    """What a job's cap on one GPU is to be, and what came of that.

    ``decided_mw``: by policy; None: the limit is left alone. ``set_mw``: what was last set for the job and read back;
    None: nothing. ``observed``: it is not to be written. ``trouble``: why what was decided is not set, in words.
    """

    decided_mw: Milliwatts | None
    set_mw: Milliwatts | None = None
    observed: bool = False
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """One run of a job on this node, still here or finished within ``metrics.grace``.

    ``decisions`` by GPU are the present ones, or the last. ``usage``: of each GPU that it was charged for, by now;
    ``counted_mj``: its energy as a counter may show it, because no restart takes it back. ``message`` is the line for
    the user. ``born_mono``: since when this agent knows it, None where an agent before this one did.
    """

    facts: JobFacts
    gpus: tuple[GpuUuid, ...]
    decisions: Mapping[GpuUuid, Decision]
    caps: Mapping[GpuUuid, CapView]
    usage: Mapping[GpuUuid, Usage]
    started_at: float
    ended_at: float | None
    message: str
    counted_mj: Mapping[GpuUuid, Millijoules] = field(default_factory=dict)
    born_mono: float | None = None

    @property
    def key(self) -> JobKey:
        """The run of the job."""
        return self.facts.key

    @property
    def all_gpus(self) -> tuple[GpuUuid, ...]:
        """Its GPUs, and those that it had before it was given others."""
        return tuple(dict.fromkeys((*self.gpus, *self.usage)))


@dataclass(frozen=True, slots=True)
class AccountView:
    """What an account has used of this node's GPUs, over restarts.

    ``base_mj`` and ``born_mono``: the total when, and the time at which, this agent began to show it; ``born_mono`` is
    None where an agent before this one did.
    """

    energy_mj: Millijoules
    base_mj: Millijoules = Millijoules(0)
    born_mono: float | None = None


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
    energy_gaps: Mapping[tuple[int, str], int] = field(default_factory=dict)  # gpu, cause
    slurm_lookups: Mapping[tuple[str, str], int] = field(default_factory=dict)  # source, outcome
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
    """What the agent depends on: whether it worked when it was last used, and how many seconds a reading took."""

    up: bool
    read_s: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything there is to show. ``mode`` is enforce or observe; ``alarms`` are standing troubles in words.

    ``zone``: in which times are told to people.
    """

    at: float
    at_mono: float
    node: str
    cluster: str
    mode: str
    version: str
    interval_s: float
    gpus: tuple[GpuView, ...] = ()
    jobs: tuple[JobView, ...] = ()
    accounts: Mapping[Account, AccountView] = field(default_factory=dict)
    counters: Counters = Counters()
    policy: PolicyState = PolicyState("", True, 0.0)
    sources: Mapping[str, SourceState] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    zone: tzinfo = UTC
