"""The snapshot as JSON: watts, joules and Unix seconds; null where something is absent. Users' text is escaped."""

from collections.abc import Iterable
from typing import Any

from wattkeeper.model import Decision, GpuUuid, JobFacts, JobText, Step, Usage
from wattkeeper.moments import shown_at
from wattkeeper.snapshot import GpuView, JobView, Snapshot
from wattkeeper.text import printable
from wattkeeper.units import Millijoules, Milliwatts, joules, watts

Json = dict[str, Any]


UNEXPLAINED: Json = {
    "allowed_w": None,
    "alone_w": None,
    "decided_w": None,
    "observe": None,
    "not_set": None,
    "pending": [],
    "next_change": None,
    "until": None,
    "steps": [],
}
"""What is said of a cap where the decision behind it is not at hand."""


def status(snapshot: Snapshot, uid: int) -> Json:
    """``GET /v1/status`` as that user may see it: other users' jobs are there, without their names."""
    mine = {str(job.key) for job in snapshot.jobs if may_see(job, uid)}
    return {
        "node": snapshot.node,
        "cluster": snapshot.cluster,
        "mode": snapshot.mode,
        "version": snapshot.version,
        "at": snapshot.at,
        "interval_s": snapshot.interval_s,
        "alarms": list(snapshot.alarms),
        "policy": {
            "digest": snapshot.policy.digest,
            "reload_ok": snapshot.policy.reload_ok,
            "error": snapshot.policy.error,
        },
        "gpus": [_gpu(gpu, snapshot, mine, uid) for gpu in snapshot.gpus],
        "jobs": [job_json(job, snapshot) for job in snapshot.jobs if may_see(job, uid)],
    }


def may_see(job: JobView, uid: int) -> bool:
    """True for root and for the job's owner."""
    return uid in {0, job.facts.uid}


def find_job(snapshot: Snapshot, job_id: int, uid: int) -> JobView | None:
    """The newest run of a job, if that user may see it."""
    runs = [job for job in snapshot.jobs if job.key.job_id == job_id and may_see(job, uid)]
    return max(runs, key=lambda job: (job.ended_at is None, job.started_at), default=None)


def job_json(job: JobView, snapshot: Snapshot) -> Json:
    """One run of a job: what was asked, what it got on each GPU, and why."""
    minors = {gpu.info.uuid: gpu for gpu in snapshot.gpus}
    first = next(iter(job.decisions.values()), None)
    return {
        **names_json(job.facts, snapshot.node),
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "asked": _asked(first),
        "outcome": str(first.outcome) if first else "none",
        "message": job.message,
        "total": total_json(job.usage.values()),
        "gpus": [_job_gpu(job, uuid, minors[uuid], snapshot) for uuid in job.all_gpus if uuid in minors],
    }


def names_json(facts: JobFacts, node: str) -> Json:
    """Which run of which job this is, on which node, and whose."""
    return {
        "job_id": facts.key.job_id,
        "run": facts.key.run,
        "cluster": facts.key.cluster,
        "node": node,
        "user": _text(facts.user),
        "account": _text(facts.account),
        "partition": _text(facts.partition),
    }


def _job_gpu(job: JobView, uuid: GpuUuid, gpu: GpuView, snapshot: Snapshot) -> Json:
    decision, cap = job.decisions.get(uuid), job.caps.get(uuid)
    head: Json = {
        "gpu": gpu.info.minor,
        "uuid": uuid,
        "model": gpu.info.model,
        "cap_w": _watts(cap.set_mw if cap else None),
        **usage_json(job.usage.get(uuid)),
    }
    if decision is None or cap is None:
        return {**head, "outcome": "none", "asked": None, "rule": None, **UNEXPLAINED}
    return {
        **head,
        "outcome": str(decision.outcome),
        "asked": _asked(decision),
        "rule": decision.rule,
        "allowed_w": [watts(bound) for bound in decision.allowed_mw] if decision.allowed_mw else None,
        "alone_w": _watts(decision.alone_mw),
        "decided_w": _watts(cap.decided_mw),
        "observe": cap.observed,
        "not_set": cap.trouble,
        "pending": sorted(decision.pending),
        **_until(gpu.target.decisions if gpu.target and job.key in gpu.holders else (), snapshot),
        "steps": [step_json(step) for step in decision.steps],
    }


def _until(decisions: Iterable[Decision], snapshot: Snapshot) -> Json:
    """Up to when what was decided stands, as far as time goes: ``next_change`` as Unix time, ``until`` in words."""
    change = min((d.next_change for d in decisions if d.next_change is not None), default=None)
    return {
        "next_change": change,
        "until": None if change is None else shown_at(change, snapshot.at, snapshot.zone),
    }


def usage_json(usage: Usage | None) -> Json:
    """What a job used of one GPU; null where it is not known. ``seconds`` are those that were metered.

    ``basis``: by what its energy was divided from others', ``source``: where it comes from; each as often as there
    were several.
    """
    seconds = usage.held_ns / 1e9 if usage else None
    return {
        "energy_j": joules(usage.energy_mj) if usage else None,
        "seconds": seconds,
        "mean_w": joules(usage.energy_mj) / seconds if usage and seconds else None,
        "peak_w": _watts(usage.peak_mw) if usage else None,
        "capped_s": usage.capped_ns / 1e9 if usage and usage.capped_ns is not None else None,
        "basis": sorted(map(str, usage.bases)) if usage else [],
        "source": sorted(map(str, usage.sources)) if usage else [],
    }


def total_json(usages: Iterable[Usage]) -> Json:
    """What a job used of all its GPUs here; null where it is not known of any. ``mean_w`` is a GPU's."""
    used = list(usages)
    energy, seconds = sum(usage.energy_mj for usage in used), sum(usage.held_ns for usage in used) / 1e9
    capped = [usage.capped_ns for usage in used if usage.capped_ns is not None]
    return {
        "energy_j": joules(Millijoules(energy)) if used else None,
        "gpu_seconds": seconds if used else None,
        "mean_w": joules(Millijoules(energy)) / seconds if seconds else None,
        "peak_w": _watts(max((usage.peak_mw for usage in used if usage.peak_mw is not None), default=None)),
        "capped_s": sum(capped) / 1e9 if capped else None,
    }


def step_json(step: Step) -> Json:
    """One step of a decision."""
    source = str(step.source) if step.source else None
    return {"kind": str(step.kind), "text": step.text, "source": source, "cap_w": _watts(step.cap_mw)}


def _gpu(gpu: GpuView, snapshot: Snapshot, mine: set[str], uid: int) -> Json:
    reading = gpu.reading
    used = reading.utilization_percent if reading else None
    energy = reading.energy_mj if reading else None
    holders = [str(key) for key in gpu.holders]
    whole = gpu.target if gpu.target and (uid == 0 or mine.issuperset(holders)) else None
    return {
        "gpu": gpu.info.minor,
        "uuid": gpu.info.uuid,
        "model": gpu.info.model,
        "limit_w": _watts(reading.requested_mw if reading else None),
        "enforced_w": _watts(reading.enforced_mw if reading else None),
        "target_w": _watts(gpu.target.limit_mw if gpu.target else None),
        "baseline_w": _watts(gpu.baseline_mw),
        "default_w": watts(gpu.info.default_mw),
        "min_w": watts(gpu.info.min_mw),
        "max_w": watts(gpu.info.max_mw),
        "power_w": _watts(reading.power_mw if reading else None),
        "energy_j": None if energy is None else joules(energy),
        "temperature_c": reading.temperature_c if reading else None,
        "utilization": None if used is None else used / 100,
        "holders": [key if key in mine or uid == 0 else "another user's job" for key in holders],
        "sharing_conflicts": gpu.target.conflicts if gpu.target else 0,
        # the reason can quote what a holder asked: it is for those who may see every holder
        "why": whole.why if whole else None,
        **_until(whole.decisions if whole else (), snapshot),
        "ours": gpu.ours,
        "hold": None
        if gpu.hold is None
        else {"reason": gpu.hold.reason, "since_at": gpu.hold.since_at, "until_at": gpu.hold.until_at},
        "yielded": gpu.yielded,
        "error": gpu.error,
        "age_s": None if reading is None else max(0.0, snapshot.at_mono - reading.at_mono),
    }


def _asked(decision: Decision | None) -> str | None:
    return decision.asked if decision else None


def _text(value: JobText) -> str | None:
    return printable(value, 200) if isinstance(value, str) else None


def _watts(power: Milliwatts | None) -> float | None:
    return None if power is None else watts(power)
