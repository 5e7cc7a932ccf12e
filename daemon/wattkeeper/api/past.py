"""A job that the agent has forgotten, as the ledger knows it: JSON of the same shape as a living job's."""

from wattkeeper.api.present import UNEXPLAINED, Json, names_json, total_json, usage_json
from wattkeeper.model import GpuUuid, Usage
from wattkeeper.protocols import GpuNote, JobNote, JobRecord
from wattkeeper.units import watts


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
