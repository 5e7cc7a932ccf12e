"""The values that pass between the parts of the agent. All are frozen; none does anything.

Power is in milliwatts (``…_mw``), energy in millijoules (``…_mj``), times of day in Unix seconds (``…_at``), and
times to measure by in seconds of the monotonic clock (``…_mono``). ``None`` means *absent* or *not to be had*,
never zero. ``UNKNOWN`` means *not yet known*: a look-up may still tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from enum import Enum, StrEnum
from typing import Final, NewType

from wattkeeper.units import Millijoules, Milliwatts

GpuUuid = NewType("GpuUuid", str)
"""NVML's UUID of a GPU, ``GPU-…``: the only name of a device that never moves."""


class Unknown(Enum):
    """The type of ``UNKNOWN``."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown.UNKNOWN

JobText = str | None | Unknown
"""A field of a job: its text, absent (Slurm does not set it), or not yet known."""
JobNumber = int | None | Unknown


SEEN_RUN: Final = "seen"
"""The run of a job that was found running by its processes, which do not tell which run they are."""


@dataclass(frozen=True, slots=True, order=True)
class JobKey:
    """One run of one job. ``run`` is Slurm's SLUID (25.11 and later) or else ``r`` and the restart count, because
    a requeued job keeps its id."""

    cluster: str
    job_id: int
    run: str

    def __str__(self) -> str:
        return f"{self.job_id}" if self.run in {"", "r0", SEEN_RUN} else f"{self.job_id}/{self.run}"


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What is known of a job on this node. ``gpus`` counts this node's GPUs of the job.

    ``groups``: the owner's by the node's user database, never those the job was started with (``newgrp``, ``--gid``).
    """

    key: JobKey
    uid: int
    user: JobText = None
    account: JobText = None
    partition: JobText = None
    qos: JobText = UNKNOWN
    job_name: JobText = UNKNOWN
    reservation: JobText = None
    constraint: JobText = None
    comment: JobText = None
    num_nodes: JobNumber = None
    gpus: int = 0
    node: str = ""
    het_job_id: int | None = None
    groups: frozenset[str] | Unknown = UNKNOWN


class Sharing(StrEnum):
    """How a holder holds a GPU, as far as Slurm lets the node know."""

    WHOLE = "whole"
    SHARED = "shared"  # shards, MPS or MIG are configured on this GPU: several holders are normal


@dataclass(frozen=True, slots=True)
class Holding:
    """A job holds a GPU since ``since_at``; ``since_mono`` is what tells a late Epilog from this run's own.

    ``slices``: of compute, that its MIG instances have on this GPU; 0 where it holds none, or nobody can tell.
    """

    job: JobFacts
    gpu: GpuUuid
    share: Sharing
    since_at: float
    since_mono: float
    slices: int = 0


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """What does not change while the driver is loaded. ``index`` is NVML's, ``minor`` is N of ``/dev/nvidiaN``.

    ``instances``: UUID and compute slices of each of its MIG instances, in NVML's order; none where MIG is off.
    """

    uuid: GpuUuid
    minor: int
    index: int
    model: str
    default_mw: Milliwatts
    min_mw: Milliwatts
    max_mw: Milliwatts
    driver_version: str = ""
    instances: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class GpuReading:
    """What a GPU answered at ``at_mono``; None where it did not or cannot answer.

    ``requested_mw`` is what was set (NVML field 192), ``enforced_mw`` what holds (field 190): a BMC can lower the
    second. ``energy_mj`` counts since driver load. ``capped_ns`` counts the time the limit held the GPU back.
    ``use_by_pid``: how much each process has used the GPU since the last reading, in any unit; None where nobody asked.
    """

    at_mono: float
    at: float
    requested_mw: Milliwatts | None = None
    enforced_mw: Milliwatts | None = None
    power_mw: Milliwatts | None = None
    energy_mj: Millijoules | None = None
    temperature_c: int | None = None
    utilization_percent: int | None = None
    capped_ns: int | None = None
    use_by_pid: Mapping[int, int] | None = None


@dataclass(frozen=True, slots=True)
class GpuContext:
    """What a decision needs to know of a GPU. ``baseline_mw`` is None where it is not known yet."""

    info: GpuInfo
    baseline_mw: Milliwatts | None
    exceed_baseline: bool = False


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a decision may depend on besides the job and the GPU: the time, later temperatures and budgets.

    ``zone``: in which the site's schedules are meant that name none of their own.
    """

    now_at: float
    node: str = ""
    observe: bool = False  # settings say `mode: observe`
    zone: tzinfo = UTC


class Outcome(StrEnum):
    """What became of a user's request."""

    NONE = "none"
    GRANTED = "granted"
    CLAMPED = "clamped"
    DENIED = "denied"
    MALFORMED = "malformed"


class StepKind(StrEnum):
    """The stages of a decision, in the order in which they are always taken."""

    RULE = "rule"
    REQUEST = "request"
    SHARING = "sharing"
    CEILING = "ceiling"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Source:
    """The place in a policy that a step came from."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a decision in words, with the cap that stands after it (None: the limit is left alone)."""

    kind: StepKind
    text: str
    cap_mw: Milliwatts | None
    source: Source | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" + (f" ({self.source})" if self.source else "")


@dataclass(frozen=True, slots=True)
class CeilingHit:
    """A ceiling that applies to a decision, with the bound it comes to on that GPU."""

    name: str
    cap_mw: Milliwatts
    text: str
    source: Source | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy says one job gets on one GPU, or (``job`` None) what an idle GPU gets.

    ``rule_cap_mw`` is the cap without the request and ``cap_mw`` with it; both None where the baseline is needed
    and not known. ``asked``: the user's words, escaped and safe to print as they are; None where nothing was asked.
    ``steps`` is the one text that ``explain``, ``status``, the user's message and the log print. ``next_change``: the
    Unix time up to which it stands, as far as time goes; it may stand for longer. None: time has no part in it.

    Of a GPU that several jobs hold: ``alone_mw`` is what it would have were this job its only holder, where that is
    another limit than it has (else None); ``void``: the request was good, and does not count because of the others.
    """

    gpu: GpuUuid
    job: JobFacts | None
    rule: str | None
    rule_cap_mw: Milliwatts | None
    cap_mw: Milliwatts | None
    outcome: Outcome
    asked: str | None
    steps: tuple[Step, ...]
    allowed_mw: tuple[Milliwatts, Milliwatts] | None = None
    ceilings: tuple[CeilingHit, ...] = ()
    observe: bool = False
    pending: frozenset[str] = frozenset()
    next_change: float | None = None
    alone_mw: Milliwatts | None = None
    void: bool = False

    @property
    def limit_mw(self) -> Milliwatts | None:
        """What the GPU gets by it, after every step; None: its limit is left alone."""
        return self.steps[-1].cap_mw if self.steps else None


@dataclass(frozen=True, slots=True)
class Target:
    """What a GPU's requested limit should be. ``limit_mw`` None: leave it alone.

    ``decisions`` are the holders' (or the idle GPU's one), each with the steps down to the device's range.
    ``observe``: shown, but not to be written.
    """

    gpu: GpuUuid
    limit_mw: Milliwatts | None
    decisions: tuple[Decision, ...]
    observe: bool = False

    @property
    def conflicts(self) -> int:
        """How many holders would have another limit, were they alone on the GPU."""
        return sum(decision.alone_mw is not None for decision in self.decisions)

    @property
    def why(self) -> str:
        """The step that set the limit: the last one that changed the cap, in words."""
        steps = self.decisions[0].steps if self.decisions else ()
        deciding = None
        for before, step in zip((None, *steps), steps, strict=False):
            if before is None or step.cap_mw != before.cap_mw or (step.kind is StepKind.REQUEST and _asked(self)):
                deciding = step
        return str(deciding) if deciding else ""


def _asked(target: Target) -> bool:
    return target.decisions[0].outcome in {Outcome.GRANTED, Outcome.CLAMPED}


@dataclass(frozen=True, slots=True)
class Action:
    """Set a GPU's limit from ``old_mw`` to ``new_mw`` because of ``reason``."""

    gpu: GpuUuid
    old_mw: Milliwatts
    new_mw: Milliwatts
    reason: str

    @property
    def lowers(self) -> bool:
        """True where the GPU may draw less afterwards."""
        return self.new_mw < self.old_mw


class EnergySource(StrEnum):
    """Where an amount of energy comes from."""

    COUNTER = "counter"  # the card's own
    POWER = "power"  # the card has no counter: its power, integrated by us while we looked


class Basis(StrEnum):
    """By what the energy of an interval was divided between those who held the GPU."""

    SOLE = "sole"  # there was one
    USE = "use"  # how busy their processes kept it
    SLICES = "slices"  # their MIG instances' share of it
    EVEN = "even"  # nothing told them apart


class Gap(StrEnum):
    """Why nobody can say whose an interval's energy was, or how much it was."""

    OUTAGE = "outage"  # its holders changed, and the counter could not be read then
    RESTART = "restart"  # the counter began anew: driver reload, GPU reset or reboot
    JUMP = "jump"  # the counter moved as no GPU can draw


@dataclass(frozen=True, slots=True)
class EnergySample:
    """A reading of a GPU's energy counter. ``boot_id`` tells counters of different boots apart.

    ``power_mw`` and ``capped_ns`` are as in the reading: the power drawn, and how long the limit has held it back.
    """

    gpu: GpuUuid
    energy_mj: Millijoules
    at: float
    at_mono: float
    boot_id: str
    source: EnergySource = EnergySource.COUNTER
    power_mw: Milliwatts | None = None
    capped_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Watermark:
    """The last counter value that has been accounted for, and who held the GPU from then on.

    ``owners`` None: they have changed since, and nobody knows what the counter was then.
    """

    sample: EnergySample
    owners: tuple[JobKey, ...] | None


@dataclass(frozen=True, slots=True)
class Charges:
    """Whose the energy of one interval is. The three parts sum to the counter's delta, exactly, but for a jump.

    What follows is of the interval as a whole, and goes to each of its holders: its length, how long of it the limit
    held the GPU back, the power at its end. ``at`` is when it ended.
    """

    gpu: GpuUuid
    jobs_mj: Mapping[JobKey, Millijoules] = field(default_factory=dict)
    idle_mj: Millijoules = Millijoules(0)
    unattributed_mj: Millijoules = Millijoules(0)
    basis: Basis | None = None
    source: EnergySource = EnergySource.COUNTER
    gap: Gap | None = None
    held_ns: int = 0
    capped_ns: int | None = None
    power_mw: Milliwatts | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run of a job has used of one GPU. ``capped_ns`` and ``peak_mw`` are None where no card told.

    ``bases``: by what its energy was divided with others, as often as there were different ways.
    """

    energy_mj: Millijoules
    held_ns: int = 0
    capped_ns: int | None = None
    peak_mw: Milliwatts | None = None
    bases: frozenset[Basis] = frozenset()
    sources: frozenset[EnergySource] = frozenset()


Account = tuple[str, str]
"""An account and a partition; empty texts where Slurm set none."""
