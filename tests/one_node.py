"""The agent's own parts on GPUs in memory, at a time that tests move: no loop, no threads of devices, no files."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import cast

from tests.fakes import FakeGpus
from wattkeeper.agent import recover
from wattkeeper.agent.events import Answer, EventHandler
from wattkeeper.agent.inquire import Inquirer
from wattkeeper.agent.ledger import LedgerWriter, open_ledger
from wattkeeper.agent.lookup import Lookups
from wattkeeper.agent.observe import Observer
from wattkeeper.agent.parts import Parts
from wattkeeper.agent.spool import Spool, Spooled
from wattkeeper.agent.state import State
from wattkeeper.agent.steer import Steersman
from wattkeeper.agent.tally import Tally
from wattkeeper.agent.tick import Ticker
from wattkeeper.agent.views import take_snapshot
from wattkeeper.config.policy import parse_policies
from wattkeeper.config.settings import Settings
from wattkeeper.core.holdings import Moment
from wattkeeper.core.policy import Policy
from wattkeeper.ledger.memory import MemoryStore
from wattkeeper.ledger.merge import merged
from wattkeeper.model import GpuInfo, GpuReading, GpuUuid, JobFacts, Sharing
from wattkeeper.privileged.evidence import evidence_of
from wattkeeper.protocols import Change, Store
from wattkeeper.slurm.gres import GresGpu
from wattkeeper.slurm.hook_event import EventKind
from wattkeeper.slurm.processes import Processes
from wattkeeper.snapshot import Snapshot
from wattkeeper.system.groups import Groups
from wattkeeper.units import Millijoules, Milliwatts

WALL = 1_790_000_000.0

AS_ASKED, _ = parse_policies(
    [("p.yaml", "version: 1\ncaps:\n  - {name: everyone, cap: baseline, requests: {min: min, max: baseline}}\n")]
)
"""Every job gets what it asks for."""


@dataclass
class HandClock:
    """A clock that stands still until it is moved. ``off_s``: by how much its date is wrong."""

    at_mono: float = 1_000.0
    boot: str = "boot-1"
    off_s: float = 0.0

    def wall(self) -> float:
        return WALL + self.at_mono + self.off_s

    def mono(self) -> float:
        return self.at_mono

    def boot_id(self) -> str:
        return self.boot

    async def sleep(self, seconds: float) -> None:
        self.at_mono += seconds


class AtOnce:
    """A ``LedgerWriter`` that writes to the store at once, and lists the changes."""

    def __init__(self, store: Store, changes: list[Change]) -> None:
        self._store = store
        self._changes = changes
        self.kept = store.load()

    async def charge(self, change: Change) -> bool:
        await self.commit(change)
        return False

    async def commit(self, change: Change) -> bool:
        self._store.commit(change)
        self._changes.append(change)
        return True


class AtLast(AtOnce):
    """One that lets what may wait for the next change wait for it however long. What waits dies with its agent."""

    def __init__(self, store: Store, changes: list[Change]) -> None:
        super().__init__(store, changes)
        self._waiting: list[Change] = []

    async def charge(self, change: Change) -> bool:
        self._waiting.append(change)
        return True

    async def commit(self, change: Change) -> bool:
        waited, self._waiting = self._waiting, []
        self._store.commit(reduce(merged, [*waited, change]))
        self._changes += [*waited, change]
        return True


@dataclass
class _Waiting:
    """A spool that is read once."""

    waiting: list[Spooled]

    def events(self) -> list[Spooled]:
        return self.waiting


class OneNode:
    """A node with GPUs of 700 W, whose agent can be restarted. ``store`` outlives it; ``changes``: all it was told."""

    def __init__(
        self,
        *infos: GpuInfo,
        processes: Processes | None = None,
        gres: tuple[GresGpu, ...] | None = None,
        policy: Policy | None = None,
        gpus: FakeGpus | None = None,
        writer: type[AtOnce] = AtOnce,
        clock: HandClock | None = None,
        folder: Path | None = None,
    ) -> None:
        """``gpus``: those of ``infos``, where they are to behave otherwise than fakes do. ``clock`` likewise.

        ``folder``: for a ledger on the disk, in the place of ``store``, ``changes`` and ``writer``.
        """
        self.clock = clock or HandClock()
        self.gpus = gpus or FakeGpus(*infos)
        self._policy = policy or Policy()
        self.store = MemoryStore()
        self.changes: list[Change] = []
        self._processes = processes
        self._gres = gres
        self._writer = writer
        self._folder = folder
        for gpu in self.gpus.gpus.values():
            gpu.reading = replace(gpu.reading, energy_mj=Millijoules(1_000_000), power_mw=Milliwatts(100_000))
        self.start()

    def start(self) -> None:
        """An agent that knows what the store kept; what another knew is gone."""
        self.tally = Tally()
        self.state = State(Settings(), self._policy, "node1", boot_id=self.clock.boot_id())
        ledger = self._open_ledger()
        self.ledger = ledger
        observer = Observer(self.state, self.gpus, self.clock, self._processes or Processes(evidence_of))
        steersman = Steersman(self.state, self.gpus, self.clock, self.tally)
        parts = Parts(
            self.state, self.clock, self.tally, self.gpus, ledger, observer, steersman, deciding=asyncio.Lock()
        )
        self.parts = parts
        self._events, self._ticker = (
            EventHandler(parts, Inquirer(parts, self._nobody_to_ask, lambda: None)),
            Ticker(parts),
        )
        kept = ledger.kept

        async def come_back() -> None:
            await recover.bind(self.state, self.gpus, self.gpus, self._gres, kept)
            await recover.take_up(self.state, kept, ledger, self.clock)
            steersman.decide(self.state.gpus)
            for gpu in self.state.gpus.values():
                self.tally.expect(gpu.info.minor)

        asyncio.run(come_back())

    def _open_ledger(self) -> LedgerWriter:
        if self._folder is None:
            return cast(LedgerWriter, self._writer(self.store, self.changes))
        return open_ledger(self._folder, self.clock, lambda: 1e9, lambda _: None)

    async def _nobody_to_ask(self, _: Callable[[JobFacts], None]) -> Lookups:
        return Lookups([], Groups(self.clock, lambda _: frozenset()), self.clock, self.tally, lambda _: None, 1.0)

    def tick(self) -> None:
        self._stamp()
        asyncio.run(self._ticker.tick())

    def prolog(self, job_id: int, gpus: str, *, visible: str | None = None, **more: str) -> Answer:
        devices = {"SLURM_JOB_GPUS": gpus, "CUDA_VISIBLE_DEVICES": visible or gpus}
        return self.post(EventKind.PROLOG, job_id, {**devices, **more})

    def epilog(self, job_id: int, **more: str) -> Answer:
        return self.post(EventKind.EPILOG, job_id, more)

    def post(self, kind: EventKind, job_id: int, environment: Mapping[str, str], when: Moment | None = None) -> Answer:
        """An event, a second after whatever came before it, or (``when``) out of the spool."""
        self.go_on(1)
        self._stamp()
        return asyncio.run(taken_in(self._events, kind, raw_event(job_id, environment), when))

    def drain(self, spool: Spool, beside: Callable[[], Awaitable[None]] | None = None) -> None:
        """Take in what lies in the spool, and do something ``beside`` it."""
        self._stamp()

        async def both() -> None:
            draining = asyncio.create_task(recover.drain(spool, self._events))
            if beside is not None:
                await beside()
            await draining

        asyncio.run(both())

    def ago(self, seconds: float) -> Moment:
        """A moment of before."""
        return Moment(self.clock.wall() - seconds, self.clock.mono() - seconds)

    def drain_at_once(self, events: Sequence[tuple[EventKind, int, Mapping[str, str]]]) -> None:
        """Take in events that waited in the spool, a tenth of a second between each and the next."""
        waiting = [
            Spooled(kind, self.ago((len(events) - number) / 10), raw_event(job, environment), Path("/nowhere"))
            for number, (kind, job, environment) in enumerate(events)
        ]
        self.drain(cast(Spool, _Waiting(waiting)))

    def post_at_once(self, *events: tuple[EventKind, int, Mapping[str, str]]) -> list[Answer]:
        """Several events, none of which waits for another's answer."""
        self.go_on(1)
        self._stamp()

        async def all_of_them() -> list[Answer]:
            return await asyncio.gather(*(self._events.handle(k, raw_event(job, env)) for k, job, env in events))

        return asyncio.run(all_of_them())

    def go_on(self, seconds: float, **gained_mj: int) -> None:
        """Time passes, and counters gain: ``GPU_0=5`` means 5 mJ on ``GPU-0``."""
        self.clock.at_mono += seconds
        for name, gained in gained_mj.items():
            gpu = self.gpus.gpus[GpuUuid(name.replace("_", "-"))]
            energy = Millijoules((gpu.reading.energy_mj or 0) + gained)
            gpu.reading = replace(gpu.reading, energy_mj=energy)

    def show(self, uuid: str, **reading: object) -> None:
        """Change what a GPU answers from now on."""
        gpu = self.gpus.gpus[GpuUuid(uuid)]
        gpu.reading = replace(gpu.reading, **reading)  # type: ignore[arg-type]

    def snapshot(self) -> Snapshot:
        return take_snapshot(self.state, self.tally, self.clock)

    def used_mj(self, uuid: str) -> Mapping[int, int]:
        """By job, what the agent says that it used of a GPU, over all its runs."""
        used: dict[int, int] = {}
        for key, job in self.state.jobs.items():
            if GpuUuid(uuid) in job.usage:
                used[key.job_id] = used.get(key.job_id, 0) + job.usage[GpuUuid(uuid)].energy_mj
        return used

    def gaps(self, minor: int = 0) -> dict[str, int]:
        """By cause, the gaps of a GPU that were counted, where there were any."""
        return {str(cause): n for (number, cause), n in self.tally.energy_gaps.items() if number == minor and n}

    def _stamp(self) -> None:
        for gpu in self.gpus.gpus.values():
            reading: GpuReading = gpu.reading
            gpu.reading = replace(reading, at_mono=self.clock.mono(), at=self.clock.wall())


async def taken_in(events: EventHandler, kind: EventKind, raw: bytes, when: Moment | None) -> Answer:
    """An event of now, or (``when``) out of the spool."""
    return await (events.handle(kind, raw) if when is None else await events.begin(kind, raw, when))


def raw_event(job_id: int, environment: Mapping[str, str]) -> bytes:
    """What a hook posts, or leaves in the spool."""
    known = {"SLURM_JOB_ID": str(job_id), "SLURM_JOB_UID": "1000", "SLURM_CLUSTER_NAME": "c"}
    pairs = {**known, **environment}.items()
    return b"".join(f"{name}={value}\0".encode(errors="surrogatepass") for name, value in pairs)


def gpu(minor: int, **more: object) -> GpuInfo:
    """A GPU of 700 W named ``GPU-<minor>``."""
    low, high = Milliwatts(200_000), Milliwatts(700_000)
    info = GpuInfo(GpuUuid(f"GPU-{minor}"), minor, minor, "NVIDIA H100", high, low, high)
    return replace(info, **more)  # type: ignore[arg-type]


def shared(count: int) -> tuple[GresGpu, ...]:
    """GPUs with shards, as slurmd lists them."""
    return tuple(GresGpu(minor, f"/dev/nvidia{minor}", Sharing.SHARED) for minor in range(count))
