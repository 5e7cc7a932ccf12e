"""The ledger's values as text and numbers, and back. ``UNKNOWN`` and None stay apart."""

import json
from dataclasses import fields
from functools import lru_cache

from wattkeeper.model import UNKNOWN, JobFacts, JobKey

_KEY_FIELDS = ("cluster", "job_id", "run")


def facts_to_text(facts: JobFacts) -> str:
    """Everything known of a job but its key, as ASCII JSON: what is not yet known is listed under ``unknown``."""
    values = {name: getattr(facts, name) for name in _fact_names()}
    unknown = [name for name, value in values.items() if value is UNKNOWN]
    known = {name: value for name, value in values.items() if value is not UNKNOWN}
    return json.dumps({"known": known, "unknown": unknown})


def facts_from_text(key: JobKey, text: str) -> JobFacts:
    """The opposite. Raises ValueError, KeyError or TypeError for anything that ``facts_to_text`` did not write."""
    saved = json.loads(text)
    values = {**saved["known"], **dict.fromkeys(saved["unknown"], UNKNOWN)}
    return JobFacts(key, **values)


@lru_cache(maxsize=256)  # the same few owners at every tick
def owners_to_text(owners: tuple[JobKey, ...]) -> str:
    """Runs of jobs as ASCII JSON, in their order."""
    return json.dumps([[getattr(owner, name) for name in _KEY_FIELDS] for owner in owners])


def owners_from_text(text: str) -> tuple[JobKey, ...]:
    """The opposite. Raises ValueError or TypeError for anything else."""
    return tuple(JobKey(cluster, job_id, run) for cluster, job_id, run in json.loads(text))


def _fact_names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(JobFacts) if field.name != "key")
