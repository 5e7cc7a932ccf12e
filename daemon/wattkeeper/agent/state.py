"""What the agent knows at this moment. Only the loop changes it; everybody else gets snapshots."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo

from wattkeeper.agent.accounts import Accounts
from wattkeeper.config.settings import Settings
from wattkeeper.core.drift import DriftHistory
from wattkeeper.core.policy import Policy
from wattkeeper.ledger.schema import OVER_KEPT
from wattkeeper.model import (
    Charges,
    Decision,
    GpuContext,
    GpuInfo,
    GpuReading,
    GpuUuid,
    Holding,
    JobFacts,
    JobKey,
    Target,
    Usage,
    Watermark,
)
from wattkeeper.slurm.gres import GresMap
from wattkeeper.snapshot import AdminHold, JobView, PolicyState, SourceState
from wattkeeper.system.zones import machine_zone
from wattkeeper.units import Millijoules, Milliwatts


@dataclass(slots=True)
class Gpu:
    """One GPU. ``confirmed_mw``: the target as we last read it back; None since our start or a change of target.

    ``told``: whether the actuator has said what it saved of this GPU, and whether it is ours; until then it is left be.

    ``saved_mw``: the baseline saved in ``run_dir``; ``free_mw``: the limit last seen while no job held the GPU and
    we had not written it. ``grounds``: what the target was decided on, and ``decided_at`` for when: while they stay,
    and until it said that it would change, so does it. ``timed``: time alone has moved the target. ``applying`` counts
    writes under way, of which ``writing_mw`` is the newest; ``written_mono``: when the last ended. ``left_mw``: a
    foreign limit that was reported and is being left. ``read_error`` stands until the GPU is read again, ``error``
    until it is written. ``use``: how much each holder has used it, and in the interval that ended at which monotonic
    time.
    """

    info: GpuInfo
    told: bool = False
    saved_mw: Milliwatts | None = None
    free_mw: Milliwatts | None = None
    ours: bool = False
    reading: GpuReading | None = None
    target: Target | None = None
    grounds: tuple[object, ...] = ()
    decided_at: float = 0.0
    timed: bool = False
    confirmed_mw: Milliwatts | None = None
    drift: DriftHistory = field(default_factory=DriftHistory)
    left_mw: Milliwatts | None = None
    hold: AdminHold | None = None
    watermark: Watermark | None = None
    use: tuple[float, Mapping[JobKey, int]] | None = None
    idle_mj: Millijoules = Millijoules(0)
    unattributed_mj: Millijoules = Millijoules(0)
    read_error: str | None = None
    error: str | None = None
    applying: int = 0
    written_mono: float = 0.0
    writing_mw: Milliwatts | None = None

    @property
    def left_be(self) -> bool:
        """True where its limit is not the agent's to write now: an admin's or another writer's, or nobody knows."""
        return not self.told or self.hold is not None or self.drift.yielded

    def keep_baseline(self, found_mw: Milliwatts) -> None:
        """What it had before our write is its baseline, unless one was saved earlier."""
        self.saved_mw = self.saved_mw if self.saved_mw is not None else found_mw


@dataclass(slots=True)
class Job:
    """One run of a job on this node, from its start until it is forgotten.

    ``caps_mw``: of each GPU the limit that was last set for it and read back; a GPU that got none is not in it.
    ``born_mono``: since when this agent knows it; None where an agent before this one did. ``usage``: all that it was
    charged, ``counted_mj``: as much of that as no restart can take back.
    """

    facts: JobFacts
    gpus: tuple[GpuUuid, ...]
    started_at: float
    ended_at: float | None = None
    ended_mono: float | None = None
    decisions: dict[GpuUuid, Decision] = field(default_factory=dict)
    caps_mw: dict[GpuUuid, Milliwatts] = field(default_factory=dict)
    usage: dict[GpuUuid, Usage] = field(default_factory=dict)
    counted_mj: dict[GpuUuid, Millijoules] = field(default_factory=dict)
    born_mono: float | None = None
    last_view: JobView | None = None

    def end_at(self, at: float) -> float:
        """When it ended, by a wall clock that may have been set back meanwhile: no run ends before it began."""
        return max(at, self.started_at)


@dataclass(slots=True)
class State:
    """Everything that changes while the agent runs.

    ``over``: when runs ended, by the monotonic clock, oldest first: a hook that comes late or twice begins nothing.
    ``unnoted``: jobs whose decisions the ledger does not know yet. ``uncounted``: charges that it has not written yet,
    each with the monotonic time of its end. ``totals_known``: False as long as the ledger, and with it what came before
    this agent, could not be read.
    """

    settings: Settings
    policy: Policy
    node: str
    cluster: str = ""
    boot_id: str = ""
    gres: GresMap = field(default_factory=lambda: GresMap(()))
    gpus: dict[GpuUuid, Gpu] = field(default_factory=dict)
    over: dict[JobKey, float] = field(default_factory=dict)
    jobs: dict[JobKey, Job] = field(default_factory=dict)
    unnoted: set[JobKey] = field(default_factory=set)
    uncounted: list[tuple[Charges, float]] = field(default_factory=list)
    totals_known: bool = True
    accounts: Accounts = field(default_factory=Accounts)
    local_zone: tzinfo = field(default_factory=machine_zone)
    policy_state: PolicyState = field(default_factory=lambda: PolicyState("", True, 0.0))
    sources: dict[str, SourceState] = field(default_factory=dict)
    alarms: dict[str, str] = field(default_factory=dict)
    _holdings: tuple[Holding, ...] = ()
    _held: dict[GpuUuid, tuple[Holding, ...]] = field(default_factory=dict)  # holdings by GPU, asked at every tick
    _owned: dict[GpuUuid, tuple[JobKey, ...]] = field(default_factory=dict)

    @property
    def holdings(self) -> tuple[Holding, ...]:
        """Who holds what, oldest first; ``replace_holdings`` changes it."""
        return self._holdings

    def holders(self, gpu: GpuUuid) -> tuple[Holding, ...]:
        """Who holds a GPU, oldest first."""
        return self._held.get(gpu, ())

    def owners(self, gpu: GpuUuid) -> tuple[JobKey, ...]:
        """Whose the GPU's energy is from now on."""
        return self._owned.get(gpu, ())

    @property
    def zone(self) -> tzinfo:
        """The time zone of schedules that name none."""
        return self.settings.time_zone or self.local_zone

    def replace_holdings(self, removed: Iterable[Holding], added: Iterable[Holding]) -> None:
        """Take some holdings away and add others. A run that holds something is not over: its name is used again."""
        added = tuple(added)
        for holding in added:
            self.over.pop(holding.job.key, None)
        gone = {(h.job.key, h.gpu) for h in removed}
        self._holdings = (*(h for h in self._holdings if (h.job.key, h.gpu) not in gone), *added)
        held = {h.gpu for h in self._holdings}
        self._held = {gpu: tuple(h for h in self._holdings if h.gpu == gpu) for gpu in held}
        self._owned = {gpu: tuple(sorted(h.job.key for h in holders)) for gpu, holders in self._held.items()}

    def note_over(self, runs: Iterable[JobKey], at_mono: float) -> None:
        """Remember runs that have ended, the newest ``OVER_KEPT`` of them: an agent runs for months."""
        for run in runs:
            self.over.pop(run, None)
            self.over[run] = at_mono
        while len(self.over) > OVER_KEPT:
            del self.over[next(iter(self.over))]

    def baseline_mw(self, gpu: Gpu) -> Milliwatts | None:
        """What "put it back" means: declared by the site, else as saved, else as last seen on the free GPU.

        None where a job held the GPU before we first saw it: its limit may be that job's, or our own.
        """
        declared = self.settings.gpus.declared_mw(gpu.info)
        if declared is not None:
            return declared
        if gpu.saved_mw is not None:
            return gpu.saved_mw
        return gpu.free_mw

    def note_free(self, gpu: Gpu) -> None:
        """Remember the limit of a GPU that is nobody's: what a first write will find as the baseline."""
        if gpu.reading is not None and gpu.told and not gpu.ours and not self.holders(gpu.info.uuid):
            gpu.free_mw = gpu.reading.requested_mw

    def context(self, gpu: Gpu) -> GpuContext:
        """What a decision about this GPU needs."""
        return GpuContext(gpu.info, self.baseline_mw(gpu), self.settings.gpus.exceed_baseline)
