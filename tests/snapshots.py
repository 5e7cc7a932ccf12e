"""A snapshot made by hand, for the tests of its views: every kind of thing there is to show, once at least."""

from collections.abc import Mapping
from dataclasses import replace

from wattkeeper.model import (
    UNKNOWN,
    Basis,
    Conditions,
    Decision,
    EnergySource,
    GpuInfo,
    GpuReading,
    GpuUuid,
    JobFacts,
    JobKey,
    Outcome,
    Step,
    StepKind,
    Target,
    Usage,
)
from wattkeeper.snapshot import (
    AccountView,
    AdminHold,
    CapView,
    Counters,
    GpuView,
    Histogram,
    JobView,
    PolicyState,
    Snapshot,
    SourceState,
)
from wattkeeper.units import Millijoules, Milliwatts

NOW = 1_790_000_000.0
NOW_MONO = 5_000.0
CONDITIONS = Conditions(NOW, "gpu-node-1")


def uuid(minor: int) -> GpuUuid:
    return GpuUuid(f"GPU-{minor:08x}-0000-0000-0000-000000000000")


def info(minor: int) -> GpuInfo:
    """An H100: 200 to 700 W."""
    low, high = Milliwatts(200_000), Milliwatts(700_000)
    return GpuInfo(uuid(minor), minor, minor, "NVIDIA H100 80GB HBM3", high, low, high, "580.65.06")


def reading(age_s: float = 0.5) -> GpuReading:
    return GpuReading(
        at_mono=NOW_MONO - age_s,
        at=NOW - age_s,
        requested_mw=Milliwatts(250_000),
        enforced_mw=Milliwatts(240_000),
        power_mw=Milliwatts(187_654),
        energy_mj=Millijoules(123_456_789),
        temperature_c=54,
        utilization_percent=98,
        capped_ns=1_500_000_000,
    )


def decision(minor: int, job: JobFacts | None, cap_mw: int) -> Decision:
    cap = Milliwatts(cap_mw)
    step = Step(StepKind.RULE, "rule 'everyone'", cap)
    return Decision(uuid(minor), job, "everyone", cap, cap, Outcome.NONE, None, (step,))


def gpu(minor: int, **more: object) -> GpuView:
    target = Target(uuid(minor), Milliwatts(250_000), (decision(minor, None, 250_000),))
    view = GpuView(info(minor), reading(), target, Milliwatts(500_000), holders=(), ours=True)
    return replace(view, **more)  # type: ignore[arg-type]


def used(energy_mj: int) -> Usage:
    """An hour on a GPU that was shared."""
    bases, sources = frozenset({Basis.USE, Basis.EVEN}), frozenset({EnergySource.COUNTER})
    return Usage(Millijoules(energy_mj), 3_600_000_000_000, 90_000_000_000, Milliwatts(412_000), bases, sources)


def job(job_id: int, *minors: int, run: str = "r0", ended_at: float | None = None, **more: object) -> JobView:
    named = {"user": "alice", "account": "ml-vision", "partition": "gpu", "qos": "normal"} | more
    facts = JobFacts(JobKey("c1", job_id, run), 1000, **named)  # type: ignore[arg-type]
    view = JobView(
        facts=facts,
        gpus=tuple(uuid(minor) for minor in minors),
        decisions={uuid(minor): decision(minor, facts, 250_000) for minor in minors},
        caps={uuid(minor): CapView(Milliwatts(250_000), Milliwatts(250_000)) for minor in minors},
        usage={},
        started_at=NOW - 100,
        ended_at=ended_at,
        message="",
    )
    return charged(view, {minor: 1_000_500 + minor for minor in minors})


def charged(view: JobView, energy_mj: Mapping[int, int]) -> JobView:
    """The job, having used so much of each GPU, all of which the ledger has."""
    usage = {uuid(minor): used(energy) for minor, energy in energy_mj.items()}
    return replace(view, usage=usage, counted_mj={gpu: one.energy_mj for gpu, one in usage.items()})


def snapshot() -> Snapshot:
    """Four GPUs: in use, shared, stale, and held by an admin with nothing known of it."""
    return Snapshot(
        at=NOW,
        at_mono=NOW_MONO,
        node="gpu-node-1",
        cluster="c1",
        mode="enforce",
        version="0.1.0",
        interval_s=5.0,
        gpus=(
            gpu(0, holders=(JobKey("c1", 7, "r0"),), idle_mj=Millijoules(5_000), unattributed_mj=Millijoules(1)),
            gpu(1, reading=replace(reading(), energy_mj=None, capped_ns=None), yielded=True),
            gpu(2, reading=reading(age_s=15.5), error="read did not return in 2 s"),
            gpu(3, reading=None, target=None, baseline_mw=None, hold=AdminHold("fan test", NOW - 60, None)),
        ),
        jobs=(
            job(7, 0, 1),
            job(8, 1, user='bo"b\n\\', account=None, qos=UNKNOWN),
            job(9, 1, ended_at=NOW - 10),
        ),
        accounts={
            ("ml-vision", "gpu"): AccountView(Millijoules(86_400_000_123)),
            ("", "gpu"): AccountView(Millijoules(7_000)),
        },
        counters=Counters(
            cap_writes={"event": 4, "drift": 1},
            cap_write_errors={(2, "timeout"): 1},
            hook_events={("prolog", "applied"): 3, ("epilog", "late"): 1},
            requests={"granted": 2, "clamped": 1},
            drift={(1, "writer", "yielded"): 1},
            energy_gaps={(1, "outage"): 2, (2, "restart"): 1},
            slurm_lookups={("scontrol", "ok"): 3, ("scontrol", "not_found"): 0},
            apply_seconds={"prolog": Histogram((0, 0, 1, 2, 2, 3, 3, 3, 3, 3), 3, 0.1875)},
        ),
        policy=PolicyState("0123abcd", True, NOW - 3600),
        sources={"nvml": SourceState(True, 0.0025), "slurm": SourceState(False, 2.0)},
    )
