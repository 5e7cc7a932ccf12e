"""Coming back: bind the GPUs, take up what was kept, drain the spool, look at what runs."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial

from wattkeeper.agent.events import EventHandler, begin_on
from wattkeeper.agent.ledger import LedgerWriter
from wattkeeper.agent.spool import Spool
from wattkeeper.agent.state import Gpu, Job, State
from wattkeeper.agent.steer import ask_book
from wattkeeper.config.settings import Settings
from wattkeeper.core.holdings import Moment, Verdict
from wattkeeper.ledger.schema import OVER_KEPT_S
from wattkeeper.model import SEEN_RUN, UNKNOWN, GpuInfo, JobKey, Sharing
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.protocols import Actuator, Change, Clock, GpuReader, Kept, RunningJobs
from wattkeeper.slurm.gres import Device, GresGpu, GresMap, MappingError
from wattkeeper.slurm.hook_event import EventError, facts_of
from wattkeeper.system.failpoint import failpoint
from wattkeeper.units import Millijoules

log = logging.getLogger("wattkeeper.recovery")

BIND_DEADLINE_S = 5.0
BOOK_DEADLINE_S = 1.0


async def bind(
    state: State, reader: GpuReader, actuator: Actuator, gres: tuple[GresGpu, ...] | None, kept: Kept
) -> None:
    """Find the GPUs, their saved baselines, and which device each of Slurm's GPU numbers is.

    Without a driver the state has no GPUs, and says why. Raises nothing.
    """
    try:
        infos = await reader.list_gpus(BIND_DEADLINE_S)
    except DeviceError as error:
        if state.alarms.get("driver") != str(error):
            log.warning("no GPUs: %s", error)
        state.alarms["driver"] = str(error)
        return
    state.alarms.pop("driver", None)
    managed = tuple(info for info in infos if _included(info, state.settings))
    override = dict(state.settings.gpus.map) if state.settings.gpus.map is not None else None
    state.gres = GresMap(infos, gres, override)
    for number, trouble in enumerate(state.gres.troubles()):
        log.error("%s", trouble)
        state.alarms[f"gres{number}"] = trouble
    for info in managed:
        state.gpus[info.uuid] = _gpu(info, kept, state.gpus.get(info.uuid))
    await asyncio.gather(*(ask_book(state.gpus[info.uuid], actuator, BOOK_DEADLINE_S) for info in managed))


def _included(info: GpuInfo, settings: Settings) -> bool:
    names = {info.minor, info.uuid}
    include = settings.gpus.include
    return (include is None or bool(names & set(include))) and not names & set(settings.gpus.exclude)


def _gpu(info: GpuInfo, kept: Kept, known: Gpu | None) -> Gpu:
    gpu = known or Gpu(info)
    gpu.info = info
    if known is None:
        gpu.watermark = kept.watermarks.get(info.uuid)
        gpu.idle_mj = kept.idle_mj.get(info.uuid, Millijoules(0))
        gpu.unattributed_mj = kept.unattributed_mj.get(info.uuid, Millijoules(0))
        gpu.hold = kept.holds.get(info.uuid)
    return gpu


async def take_up(state: State, kept: Kept, ledger: LedgerWriter, clock: Clock) -> None:
    """Totals, holdings and jobs of before; of the last two, those of this boot: at a reboot every job has ended.

    Where the ledger cannot be read yet, its totals follow once it can.
    """
    _take_up_accounts(state, kept, clock)
    state.totals_known = kept.known
    ledger.on_late = partial(_take_up_totals, state, clock)
    if kept.boot_id != state.boot_id:
        if kept.holdings:
            over = tuple(sorted({h.job.key for h in kept.holdings}))
            log.warning("the node has booted since: jobs %s have ended", ", ".join(map(str, over)))
            await ledger.commit(Change(state.boot_id, clock.wall(), removed=kept.holdings, over=over))
        return
    for run, ended_at in kept.over.items():
        # a clock that was set back meanwhile puts no end into the future
        state.note_over((run,), clock.mono() - max(0.0, clock.wall() - ended_at))
    state.replace_holdings(state.holdings, kept.holdings)
    for holding in sorted(kept.holdings, key=lambda held: held.since_mono):  # a job began with its first
        job = state.jobs.setdefault(holding.job.key, Job(holding.job, (), holding.since_at))
        job.gpus = (*job.gpus, holding.gpu)
        state.cluster = state.cluster or holding.job.key.cluster
    for (key, uuid), used in kept.usage.items():
        if key in state.jobs:
            state.jobs[key].usage[uuid] = used
            state.jobs[key].counted_mj[uuid] = used.energy_mj


def _take_up_accounts(state: State, kept: Kept, clock: Clock) -> None:
    idle_s = {account: clock.wall() - at for account, at in kept.accounts_at.items()}
    state.accounts.take_up(kept.accounts_mj, idle_s, kept.resting_mj, clock.mono())


def _take_up_totals(state: State, clock: Clock, kept: Kept) -> None:
    """Those of a ledger that could not be read until now: what was charged meanwhile comes on top of them."""
    _take_up_accounts(state, kept, clock)
    for uuid, gpu in state.gpus.items():
        gpu.idle_mj = Millijoules(gpu.idle_mj + kept.idle_mj.get(uuid, 0))
        gpu.unattributed_mj = Millijoules(gpu.unattributed_mj + kept.unattributed_mj.get(uuid, 0))
    state.totals_known = True


async def drain(spool: Spool, handler: EventHandler) -> None:
    """Take in what the spool holds, oldest first. The writes run beside each other: a device that hangs delays none.

    An event that we stumble over is dropped with a word: left there, it would stop every agent that starts after us.
    """
    events = spool.events()
    writes = []
    try:
        for event in events:
            try:
                writes.append(await handler.begin(event.kind, event.raw, event.when))
            except Exception:
                log.exception("%s: cannot be handled, and is dropped; please report this", event.path)
            failpoint("recover.drained")
            event.path.unlink(missing_ok=True)
    finally:
        await asyncio.gather(*writes)
    if events:
        log.warning("took %d events from the spool", len(events))


async def look(state: State, handler: EventHandler, running: RunningJobs, clock: Clock) -> None:
    """Add holdings for jobs that run here and that no event told of.

    Their processes name their GPUs, and could be lying: only a GPU that no running job holds is believed. Those of a
    job that has ended are left over. Changes holdings: to be called with ``Parts.deciding`` held once events can come
    in.
    """
    found = await running.running()
    known = {holding.job.key.job_id for holding in state.holdings}
    known |= {key.job_id for key, ended in state.over.items() if ended >= clock.mono() - OVER_KEPT_S}
    for job_id, environment in (found or {}).items():
        if environment and job_id not in known:
            await _add(state, handler, set(found or {}), environment, Moment(clock.wall(), clock.mono()))


async def _add(
    state: State, handler: EventHandler, here: set[int], environment: Mapping[str, str], now: Moment
) -> None:
    try:
        facts = facts_of({**environment, "SLURM_JOB_COMMENT": ""})
        devices = _believable(state, here, state.gres.find(environment.get("SLURM_JOB_GPUS", ""), None))
    except (EventError, MappingError) as error:
        log.warning("a job that runs here cannot be placed: %s", error)
        return
    if not devices:
        return
    key = JobKey(facts.key.cluster or state.cluster, facts.key.job_id, SEEN_RUN)
    job = type(facts)(key=key, uid=facts.uid, user=facts.user, account=facts.account, partition=facts.partition,
                      comment=UNKNOWN, num_nodes=facts.num_nodes, node=state.node, gpus=len(devices))  # fmt: skip
    transition = begin_on(state, job, devices, now)
    if transition.verdict is Verdict.STARTED:
        log.warning("job=%s runs here and no hook told of it: its comment is not known", key)
        await handler.carry_out(transition, now, cut=False)


def _believable(state: State, here: set[int], devices: Sequence[Device]) -> list[Device]:
    held = {h.gpu for h in state.holdings if h.job.key.job_id in here and h.share is Sharing.WHOLE}
    named = {device.uuid for device in devices}
    return [] if held & named else [device for device in devices if device.uuid in state.gpus]
