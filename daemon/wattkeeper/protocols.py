"""The seams of the agent. Each has more than one implementation, or a fake with behaviour that tests run against."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from wattkeeper.errors import WattkeeperError
from wattkeeper.model import (
    UNKNOWN,
    Account,
    Charges,
    GpuInfo,
    GpuReading,
    GpuUuid,
    Holding,
    JobFacts,
    JobKey,
    JobText,
    Outcome,
    Usage,
    Watermark,
)
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.snapshot import AdminHold
from wattkeeper.units import Millijoules, Milliwatts


class Clock(Protocol):
    """Every time the agent goes by."""

    def wall(self) -> float:
        """Unix time in seconds. May step either way: for records and people only."""
        ...

    def mono(self) -> float:
        """Seconds since an arbitrary point of this boot; never goes back. For deadlines, ticks and intervals."""
        ...

    def boot_id(self) -> str:
        """The same text until the machine boots again."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after so many monotonic seconds."""
        ...


class GpuReader(Protocol):
    """Reads GPUs; never changes one. Every call ends by its deadline, in seconds."""

    async def list_gpus(self, deadline_s: float) -> tuple[GpuInfo, ...]:
        """The GPUs of this node, by minor number. Raises DeviceError (NO_DRIVER) where there is no driver."""
        ...

    async def read(
        self, gpus: Sequence[GpuUuid], deadline_s: float, shared: Collection[GpuUuid] = ()
    ) -> Mapping[GpuUuid, GpuReading | DeviceError]:
        """Limits, power, energy, temperature and use of each GPU, or why it cannot be read; what a card lacks is None.

        Each has ``deadline_s`` seconds. A GPU that is late costs all the others together one deadline at most.
        ``shared``: those of which it is also asked how much each process uses them.
        """
        ...

    def stalled(self, gpu: GpuUuid) -> bool:
        """True while a call on this device is out past its deadline."""
        ...


class Actuator(Protocol):
    """Writes power limits, in milliwatts. See ``gpus.actuator.ThreadedActuator`` for each call's promise."""

    async def set_limit(self, uuid: str, limit_mw: int, deadline_s: float) -> int: ...
    async def claim(self, uuid: str, deadline_s: float) -> int: ...
    async def save_baseline(self, uuid: str, deadline_s: float) -> int: ...
    async def give_back(self, uuid: str, limit_mw: int, deadline_s: float) -> int: ...
    async def baseline(self, uuid: str, deadline_s: float) -> tuple[int | None, bool]: ...
    def stalled(self, gpu: GpuUuid) -> bool: ...


class RunningJobs(Protocol):
    """Which jobs run on this node, by evidence on the node itself (never a question to slurmctld)."""

    async def running(self) -> Mapping[int, Mapping[str, str]] | None:
        """By job id, the environment of each job with a process here; None where it cannot be told."""
        ...


class LookupProblem(StrEnum):
    """Why a look-up told nothing."""

    TIMEOUT = "timeout"  # no answer by the deadline
    REFUSED = "refused"  # Slurm, or the program that asks it, said no
    WRONG = "wrong"  # an answer that cannot be believed: of another job, or garbage
    NOT_FOUND = "not_found"  # Slurm knows no such job


class LookupFailedError(WattkeeperError):
    """A look-up told nothing. The text names who was asked, for which job, and what came back."""

    def __init__(self, kind: LookupProblem, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Looked:
    """What Slurm says of a job, beside what the hook told. UNKNOWN: this source does not tell, or not safely."""

    job_id: int
    uid: int
    qos: JobText = UNKNOWN
    job_name: JobText = UNKNOWN
    account: JobText = UNKNOWN


class JobLookup(Protocol):
    """Asks Slurm about one job."""

    async def look_up(self, job_id: int, deadline_s: float) -> Looked:
        """What slurmctld says of a job, within ``deadline_s`` seconds. Raises LookupFailedError.

        No text that a user chose (job name, comment) can pass for another field.
        """
        ...

    async def close(self) -> None:
        """End what it started."""
        ...


@dataclass(frozen=True, slots=True)
class GpuNote:
    """What a job got on one GPU. ``cap_mw``: the cap that was last set and read back; None where none was.

    A note that has none leaves what one before it said.
    """

    minor: int
    model: str
    cap_mw: Milliwatts | None


@dataclass(frozen=True, slots=True)
class JobNote:
    """One run of a job on this node, as it is to be remembered beside its energy. ``ended_at`` None: it runs.

    ``asked``: the user's words, safe to print; ``outcome`` what became of them.
    """

    facts: JobFacts
    started_at: float
    ended_at: float | None = None
    asked: str | None = None
    outcome: Outcome = Outcome.NONE
    rule: str | None = None
    gpus: Mapping[GpuUuid, GpuNote] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """All that is known of a run that has ended: what a site can bill by. Its energy is the ledger's, exactly."""

    note: JobNote
    usage: Mapping[GpuUuid, Usage]


@dataclass(frozen=True, slots=True)
class Kept:
    """What the ledger kept from before: of this boot, or of an earlier one whose holdings mean nothing any more.

    ``over``: when runs ended, in Unix time, oldest first. ``known`` False: the ledger could not be read, and nobody
    knows what it kept.
    """

    boot_id: str | None = None
    holdings: tuple[Holding, ...] = ()
    over: Mapping[JobKey, float] = field(default_factory=dict)
    watermarks: Mapping[GpuUuid, Watermark] = field(default_factory=dict)
    usage: Mapping[tuple[JobKey, GpuUuid], Usage] = field(default_factory=dict)
    accounts_mj: Mapping[Account, Millijoules] = field(default_factory=dict)
    accounts_at: Mapping[Account, float] = field(default_factory=dict)
    resting_mj: Mapping[Account, Millijoules] = field(default_factory=dict)
    idle_mj: Mapping[GpuUuid, Millijoules] = field(default_factory=dict)
    unattributed_mj: Mapping[GpuUuid, Millijoules] = field(default_factory=dict)
    holds: Mapping[GpuUuid, AdminHold] = field(default_factory=dict)
    known: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """What one event or tick changes; written whole or not at all.

    ``watermarks`` move and ``charges`` are added in the same transaction as the holdings, so that no joule is
    counted twice or lost by a crash. ``holds``: None takes a hold away. ``notes`` come before the charges of the same
    change: a job's account is known before it is charged.
    """

    boot_id: str
    at: float
    removed: tuple[Holding, ...] = ()
    added: tuple[Holding, ...] = ()
    over: tuple[JobKey, ...] = ()
    charges: tuple[Charges, ...] = ()
    watermarks: tuple[Watermark, ...] = ()
    holds: Mapping[GpuUuid, AdminHold | None] = field(default_factory=dict)
    notes: tuple[JobNote, ...] = ()

    @property
    def is_energy_alone(self) -> bool:
        """True where nothing changes but counters and what was charged."""
        return not (self.removed or self.added or self.over or self.holds or self.notes)


class Store(Protocol):
    """The ledger. Each method is one transaction and may block on the disk. Raises StoreError."""

    def load(self) -> Kept:
        """What was kept. ``usage`` has the jobs that hold something, and those of the last hour; ``accounts_mj`` those
        that were charged, or had a job, in the last day, and ``resting_mj`` all others.
        """
        ...

    def commit(self, change: Change) -> None:
        """Write a change. Committing the same holdings, or the same end, again changes nothing."""
        ...

    def unrecorded(self) -> Sequence[JobRecord]:
        """Runs that have ended and whose record has not been noted as written, oldest first."""
        ...

    def note_recorded(self, keys: Sequence[JobKey]) -> None:
        """Their records are written: they are never given again."""
        ...

    def prune(self, before_at: float) -> int:
        """Forget recorded jobs that ended earlier, and days before; how many jobs. Totals stay."""
        ...

    def close(self) -> None:
        """Close the files; nothing may follow."""
        ...
