"""A job that the agent has forgotten, as the ledger knows it: JSON of the same shape as a living job's."""

from typing import Any

from wattkeeper.model import GpuUuid, JobText
from wattkeeper.protocols import GpuNote, JobNote, JobRecord, Usage
from wattkeeper.text import printable
from wattkeeper.units import joules, watts

Json = dict[str, Any]


def past_json(record: JobRecord) -> Json:
    """One run of a job. Why it got its cap, step by step, is not kept: ``steps`` is empty, ``message`` too."""
    note = record.note
    facts = note.facts
    known = sorted(note.gpus.items(), key=lambda entry: entry[1].minor)
    return {
        "job_id": facts.key.job_id,
        "run": facts.key.run,
        "cluster": facts.key.cluster,
        "node": facts.node,
        "user": _text(facts.user),
        "account": _text(facts.account),
        "partition": _text(facts.partition),
        "started_at": note.started_at,
        "ended_at": note.ended_at,
        "asked": note.asked,
        "outcome": str(note.outcome),
        "message": "",
        "gpus": [_gpu(note, uuid, gpu, record.usage.get(uuid)) for uuid, gpu in known],
    }


def _gpu(note: JobNote, uuid: GpuUuid, gpu: GpuNote, usage: Usage | None) -> Json:
    seconds = usage.held_ns / 1e9 if usage else None
    return {
        "gpu": gpu.minor,
        "uuid": uuid,
        "model": gpu.model,
        "cap_w": None if gpu.cap_mw is None else watts(gpu.cap_mw),
        "energy_j": joules(usage.energy_mj) if usage else None,
        "seconds": seconds,
        "mean_w": joules(usage.energy_mj) / seconds if usage and seconds else None,
        "peak_w": watts(usage.peak_mw) if usage and usage.peak_mw is not None else None,
        "capped_s": usage.capped_ns / 1e9 if usage and usage.capped_ns is not None else None,
        "basis": sorted(map(str, usage.bases)) if usage else [],
        "source": sorted(map(str, usage.sources)) if usage else [],
        "outcome": str(note.outcome),
        "asked": note.asked,
        "rule": note.rule,
        "allowed_w": None,
        "observe": False,
        "pending": [],
        "steps": [],
    }


def _text(value: JobText) -> str | None:
    return printable(value, 200) if isinstance(value, str) else None
