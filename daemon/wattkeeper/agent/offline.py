"""Giving GPUs back without an agent, under the lock that a living agent holds."""

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wattkeeper.agent.root import BASELINES, root_for_commands
from wattkeeper.config.settings import Settings
from wattkeeper.errors import StoreError, WattkeeperError
from wattkeeper.gpus.actuator import ThreadedActuator
from wattkeeper.gpus.nvml import NvmlReader
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.ledger import schema
from wattkeeper.model import GpuInfo, GpuUuid, Sharing
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.privileged.nvml import Nvml
from wattkeeper.system.clock import SystemClock
from wattkeeper.system.files import RunLock
from wattkeeper.units import Milliwatts


@dataclass(frozen=True, slots=True)
class GivenBack:
    """What became of one GPU. ``new_mw`` None: it was not written, and ``note`` says why."""

    minor: int
    old_mw: Milliwatts | None
    new_mw: Milliwatts | None
    note: str
    failed: bool = False


def restore(settings: Settings, minors: Collection[int] | None, deadline_s: float = 5.0) -> tuple[GivenBack, ...]:
    """Set every GPU that is ours (of ``minors``; None: of all) back to its baseline, in the order of minor numbers.

    Blocks for up to ``deadline_s`` seconds a GPU. Raises AgentRunningError where an agent holds the lock,
    WattkeeperError where a GPU is not there or the lock or the driver is out of reach.
    """
    if not (settings.run_dir / BASELINES).is_dir():
        return ()  # nothing was ever written since boot
    with _Locked(settings.run_dir):
        return asyncio.run(_restore(settings, lambda info: minors is None or info.minor in minors, minors, deadline_s))


def give_back(settings: Settings, environment: Mapping[str, str], deadline_s: float = 0.2) -> tuple[GivenBack, ...]:
    """What an Epilog does where no agent answers: the job's GPUs get their baseline, in the order of minor numbers.

    Only GPUs that the ledger says this job holds whole and nobody else holds: where that cannot be told nothing is
    done, and the agent does it on its return. Raises like ``restore``.
    """
    job_id = environment.get("SLURM_JOB_ID", "")
    if not job_id.isdecimal() or not (settings.run_dir / BASELINES).is_dir():
        return ()
    with _Locked(settings.run_dir):
        with _as_owner_of(settings.state_dir):
            mine = _held_alone(settings.state_dir / schema.FILE, int(job_id), environment.get("SLURM_CLUSTER_NAME"))
        if not mine:
            return ()
        return asyncio.run(_restore(settings, lambda info: info.uuid in mine, None, deadline_s))


class _Locked:
    """The lock on ``run_dir``, taken now or not at all."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lock = RunLock(run_dir)

    def __enter__(self) -> None:
        try:
            self._lock.acquire()
        except OSError as error:
            raise WattkeeperError(f"{self._run_dir}/lock: {error.strerror}: run this as root") from None

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@contextmanager
def _as_owner_of(folder: Path) -> Iterator[None]:
    """Root puts its rights aside among another user's files, who could swap one for a link while SQLite opens it."""
    if os.geteuid() != 0 or not folder.is_dir() or folder.stat().st_uid == 0:
        yield
        return
    status, groups = folder.stat(), os.getgroups()
    os.setgroups([])
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _held_alone(ledger: Path, job_id: int, cluster: str | None) -> frozenset[GpuUuid]:
    """The GPUs that this job, and no other, holds by the ledger of this boot."""
    from wattkeeper.ledger.store import SqliteStore  # SQLite is only needed here

    try:
        if not ledger.is_file():
            return frozenset()
        store = SqliteStore(ledger)
        try:
            kept = store.load()
        finally:
            store.close()
    except (StoreError, OSError):
        return frozenset()
    if kept.boot_id != SystemClock().boot_id():
        return frozenset()
    mine: set[GpuUuid] = set()
    others: set[GpuUuid] = set()
    for holding in kept.holdings:
        key = holding.job.key
        its_own = key.job_id == job_id and (not cluster or not key.cluster or key.cluster == cluster)
        (mine if its_own and holding.share is Sharing.WHOLE else others).add(holding.gpu)
    return frozenset(mine - others)


async def _restore(
    settings: Settings, wanted: Callable[[GpuInfo], bool], minors: Collection[int] | None, deadline_s: float
) -> tuple[GivenBack, ...]:
    threads: dict[str, DeviceThread] = {}

    def thread_of(device: str) -> DeviceThread:
        if device not in threads:
            threads[device] = DeviceThread(device)
        return threads[device]

    clock = SystemClock()
    nvml = Nvml(str(settings.gpus.library) if settings.gpus.library else None)
    reader = NvmlReader(nvml, clock, thread_of)
    actuator = ThreadedActuator(root_for_commands(nvml, settings.run_dir, clock.boot_id()).limits, thread_of)
    try:
        gpus = await reader.list_gpus(deadline_s)
    except DeviceError as error:
        raise WattkeeperError(str(error)) from None
    _require(minors, gpus)
    work = (_give(info, settings, reader, actuator, deadline_s) for info in gpus if wanted(info))
    return tuple(await asyncio.gather(*work))


def _require(minors: Collection[int] | None, gpus: Iterable[GpuInfo]) -> None:
    there = {info.minor for info in gpus}
    absent = sorted(set(minors or ()) - there)
    if absent:
        have = ", ".join(map(str, sorted(there))) or "none"
        raise WattkeeperError(f"this node has no GPU {absent[0]} (it has: {have})")


async def _give(
    info: GpuInfo, settings: Settings, reader: NvmlReader, actuator: ThreadedActuator, deadline_s: float
) -> GivenBack:
    old_mw: Milliwatts | None = None
    try:
        saved_mw, ours = await actuator.baseline(info.uuid, deadline_s)
        answer = (await reader.read([info.uuid], deadline_s))[info.uuid]
        if isinstance(answer, DeviceError):
            raise answer
        old_mw = answer.requested_mw
        if not ours:
            return GivenBack(info.minor, old_mw, None, "not ours: left alone")
        baseline_mw = settings.gpus.declared_mw(info) or saved_mw
        if baseline_mw is None:
            note = "its baseline is not known: left alone (set gpus.baseline in the settings)"
            return GivenBack(info.minor, old_mw, None, note, failed=True)
        bounded = max(info.min_mw, min(info.max_mw, baseline_mw))
        new_mw = await actuator.give_back(info.uuid, bounded, deadline_s)
    except DeviceError as error:
        return GivenBack(info.minor, old_mw, None, str(error), failed=True)
    return GivenBack(info.minor, old_mw, Milliwatts(new_mw), "back at its baseline")
