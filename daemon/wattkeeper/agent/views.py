"""From the state to the snapshot that everybody else sees."""

from datetime import tzinfo

from wattkeeper import __version__
from wattkeeper.agent.caps import cap_of
from wattkeeper.agent.message import message
from wattkeeper.agent.state import Gpu, Job, State
from wattkeeper.agent.tally import Tally
from wattkeeper.ledger.rows import account_of
from wattkeeper.model import Account, GpuUuid
from wattkeeper.protocols import Clock
from wattkeeper.snapshot import AccountView, CapView, GpuView, JobView, Snapshot
from wattkeeper.units import format_power


def take_snapshot(state: State, tally: Tally, clock: Clock) -> Snapshot:
    """One picture of the state, now."""
    minors = {uuid: gpu.info.minor for uuid, gpu in state.gpus.items()}
    now_mono, now_at, zone = clock.mono(), clock.wall(), state.zone
    return Snapshot(
        at=now_at,
        at_mono=now_mono,
        node=state.node,
        cluster=state.cluster,
        mode=state.settings.mode,
        version=__version__,
        interval_s=state.settings.interval,
        gpus=tuple(_gpu(state, gpu) for gpu in state.gpus.values()),
        jobs=tuple(
            [
                view
                if (view := job.last_view) and view.ended_at is not None
                else _job(state, job, minors, now_at, zone)
                for job in state.jobs.values()
            ]
        ),
        accounts=_accounts(state, now_mono),
        counters=tally.view(),
        policy=state.policy_state,
        sources=dict(state.sources),
        alarms=(*state.alarms.values(), *_out_of_band(state)),
        zone=zone,
    )


def _gpu(state: State, gpu: Gpu) -> GpuView:
    told = state.totals_known and gpu.watermark is not None
    return GpuView(
        info=gpu.info,
        reading=gpu.reading,
        target=gpu.target,
        baseline_mw=state.baseline_mw(gpu),
        holders=state.owners(gpu.info.uuid),
        ours=gpu.ours,
        hold=gpu.hold,
        yielded=gpu.drift.yielded,
        error=gpu.read_error or gpu.error,
        idle_mj=gpu.idle_mj if told else None,
        unattributed_mj=gpu.unattributed_mj if told else None,
    )


def _accounts(state: State, now_mono: float) -> dict[Account, AccountView]:
    if not state.totals_known:
        return {}
    return state.accounts.view(now_mono, lambda: {account_of(h.job) for h in state.holdings})


def _job(state: State, job: Job, minors: dict[GpuUuid, int], now_at: float, zone: tzinfo) -> JobView:
    """The view of a job; of one that has ended it is made for the last time, because nothing changes any more."""
    caps = {uuid: cap_of(state, job, uuid) for uuid in job.decisions if uuid in state.gpus}
    job.last_view = _view(job, caps, minors, now_at, zone)
    return job.last_view


def _view(job: Job, caps: dict[GpuUuid, CapView], minors: dict[GpuUuid, int], now_at: float, zone: tzinfo) -> JobView:
    last = job.last_view
    same = last is not None and last.decisions == job.decisions and last.caps == caps
    told = last.message if last is not None and same else message(minors, job.decisions, caps, now_at, zone)
    return JobView(
        facts=job.facts,
        gpus=job.gpus,
        decisions=dict(job.decisions),
        caps=caps,
        usage=dict(job.usage),
        counted_mj=dict(job.counted_mj),
        started_at=job.started_at,
        ended_at=job.ended_at,
        born_mono=job.born_mono,
        message=told,
    )


def _out_of_band(state: State) -> list[str]:
    """Limits that something outside of the driver holds lower than was asked: reported, not fought."""
    found = []
    for gpu in state.gpus.values():
        reading = gpu.reading
        if reading is None or reading.requested_mw is None or reading.enforced_mw is None:
            continue
        if reading.enforced_mw < reading.requested_mw - 1000:
            found.append(
                f"GPU {gpu.info.minor}: {format_power(reading.enforced_mw)} is enforced, below the requested "
                f"{format_power(reading.requested_mw)}: an out-of-band limit (BMC) holds it"
            )
    return found
