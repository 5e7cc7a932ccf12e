"""A job that the agent has forgotten, as the ledger knows it: JSON of the same shape as a living job's."""

from collections.abc import Iterable

from wattkeeper.api.present import UNEXPLAINED, Json, names_json, total_json, usage_json
from wattkeeper.model import GpuUuid, JobFacts, Usage
from wattkeeper.protocols import GpuNote, JobNote, JobRecord
from wattkeeper.snapshot import Snapshot
from wattkeeper.units import Millijoules, joules, watts


def earlier_json(facts: JobFacts, started_at: float, snapshot: Snapshot, records: Iterable[JobRecord]) -> Json:
    """The runs that a requeued job had on this node before this one, and what they used in all; null: nobody knows.

    ``records``: what the ledger knows of its runs; what the agent has in mind itself goes before that.
    """
    key = facts.key
    runs = {r.note.facts.key: (r.note.facts.uid, r.note.started_at, r.usage) for r in records}
    runs |= {job.key: (job.facts.uid, job.started_at, job.usage) for job in snapshot.jobs}
    before = {
        other.run: (at, usage)
        for other, (uid, at, usage) in runs.items()
        if (other.cluster, other.job_id, uid) == (key.cluster, key.job_id, facts.uid)
        and (other.run != key.run and at <= started_at)
    }
    used = [usage.energy_mj for _, gpus in before.values() for usage in gpus.values()]
    return {
        "earlier_runs": sorted(before, key=lambda run: (before[run][0], run)),
        "earlier_energy_j": joules(Millijoules(sum(used))) if used else None,
    }


def past_json(record: JobRecord) -> Json:
    """One run of a job. Why it got its cap, step by step, is not kept: ``steps`` is empty, ``message`` too.

    A GPU that the agent did not name to the ledger is only in ``total``.
    """
    note = record.note
    known = sorted(note.gpus.items(), key=lambda entry: entry[1].minor)
    return {
        **names_json(note.facts, note.facts.node),
        "started_at": note.started_at,
        "ended_at": note.ended_at,
        "asked": note.asked,
        "outcome": str(note.outcome),
        "message": "",
        "total": total_json(record.usage.values()),
        "gpus": [_gpu(note, uuid, gpu, record.usage.get(uuid)) for uuid, gpu in known],
    }


def _gpu(note: JobNote, uuid: GpuUuid, gpu: GpuNote, usage: Usage | None) -> Json:
    return {
        "gpu": gpu.minor,
        "uuid": uuid,
        "model": gpu.model,
        "cap_w": None if gpu.cap_mw is None else watts(gpu.cap_mw),
        **usage_json(usage),
        "outcome": str(note.outcome),
        "asked": note.asked,
        "rule": note.rule,
        **UNEXPLAINED,
    }
