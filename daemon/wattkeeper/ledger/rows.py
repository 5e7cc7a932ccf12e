"""The ledger's values as text and numbers, and back. ``UNKNOWN`` and None stay apart in what is known of a job."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import TypeVar

from wattkeeper.ledger import statements as sql
from wattkeeper.model import UNKNOWN, Account, Basis, EnergySource, GpuUuid, JobFacts, JobKey, JobText, Outcome, Usage
from wattkeeper.protocols import GpuNote, JobNote, JobRecord
from wattkeeper.units import Millijoules, Milliwatts

E = TypeVar("E", bound=StrEnum)

_KEY_FIELDS = ("cluster", "job_id", "run")
_FACTS = tuple(field for field in fields(JobFacts) if field.name != "key")
_QUARTER_S = 900
"""Every time zone's days begin at a multiple of this."""

Key = tuple[int, str, str]
"""A run as the ledger's rows name it: job id, run, cluster."""


def key_row(key: JobKey) -> Key:
    """A run as rows name it."""
    return key.job_id, key.run, key.cluster


def account_of(facts: JobFacts) -> Account:
    """Whom a job's energy is charged to: empty texts for what is absent or not known yet."""
    return summed(facts.account), summed(facts.partition)


def summed(text: JobText) -> str:
    """A field of a job as energy is summed by it. SQLite takes no lone surrogates: they are written as escapes."""
    if not isinstance(text, str):
        return ""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def local_day(at: float) -> str:
    """The day of a Unix time in the node's time zone, ``YYYY-MM-DD``."""
    return _day_of_quarter(int(at // _QUARTER_S))


@lru_cache(maxsize=64)
def _day_of_quarter(quarter: int) -> str:
    return datetime.fromtimestamp(quarter * _QUARTER_S, UTC).astimezone().date().isoformat()


def to_bits(kind: type[E], members: Iterable[E]) -> int:
    """A set of an enumeration's members as bits, the first member the lowest."""
    places = _places(kind)
    return sum(places[member] for member in set(members))


def from_bits(kind: type[E], bits: int) -> frozenset[E]:
    """The opposite; bits that no member has are left out."""
    return frozenset(member for member, bit in _places(kind).items() if bits & bit)


@lru_cache(maxsize=4)
def _places(kind: type[E]) -> dict[E, int]:
    return {member: 1 << place for place, member in enumerate(kind)}


def facts_to_text(facts: JobFacts) -> str:
    """Everything known of a job but its key, as ASCII JSON: what is not yet known is listed under ``unknown``.

    What is as in a ``JobFacts`` of which nothing was said is left out: a ledger holds many.
    """
    values = [(field, getattr(facts, field.name)) for field in _FACTS]
    said = [(field.name, value) for field, value in values if value is not field.default]
    unknown = [name for name, value in said if value is UNKNOWN]
    known = {name: sorted(v) if isinstance(v, frozenset) else v for name, v in said if v is not UNKNOWN}
    return json.dumps({"known": known, "unknown": unknown}, separators=(",", ":"))


def facts_from_text(key: JobKey, text: str) -> JobFacts:
    """The opposite. Raises ValueError, KeyError or TypeError for anything that ``facts_to_text`` did not write."""
    saved = json.loads(text)
    values = {**saved["known"], **dict.fromkeys(saved["unknown"], UNKNOWN)}
    if isinstance(values.get("groups"), list):
        values["groups"] = frozenset(values["groups"])
    return JobFacts(key, **values)


@lru_cache(maxsize=256)  # the same few owners at every tick
def owners_to_text(owners: tuple[JobKey, ...] | None) -> str:
    """Runs of jobs as ASCII JSON, in their order; None as ``null``."""
    return json.dumps(None if owners is None else [[getattr(owner, name) for name in _KEY_FIELDS] for owner in owners])


def owners_from_text(text: str) -> tuple[JobKey, ...] | None:
    """The opposite. Raises ValueError or TypeError for anything else."""
    owners = json.loads(text)
    return None if owners is None else tuple(JobKey(cluster, job_id, run) for cluster, job_id, run in owners)


def usage_of(
    energy_mj: int, held_ns: int, capped_ns: int | None, peak_mw: int | None, bases: int, sources: int
) -> Usage:
    """What a row of ``job_energy`` says was used."""
    return Usage(
        Millijoules(energy_mj),
        held_ns,
        capped_ns,
        None if peak_mw is None else Milliwatts(peak_mw),
        from_bits(Basis, bases),
        from_bits(EnergySource, sources),
    )


def read_records(db: sqlite3.Connection, where: str, parameters: Sequence[object] = ()) -> list[JobRecord]:
    """The runs that a condition on ``jobs`` finds, with what they used; ``where`` may end in an order and a limit.

    Raises sqlite3.Error, and ValueError, KeyError or TypeError for rows that make no sense.
    """
    found = []
    for cluster, job_id, run, facts, started, ended, asked, outcome, rule in db.execute(
        sql.SELECT_JOBS + where, parameters
    ).fetchall():
        key = JobKey(cluster, job_id, run)
        gpus: dict[GpuUuid, GpuNote] = {}
        usage: dict[GpuUuid, Usage] = {}
        for uuid, *figures, minor, model, cap_mw in db.execute(sql.SELECT_JOB_GPUS, key_row(key)):
            if minor is not None:
                gpus[GpuUuid(uuid)] = GpuNote(minor, model, None if cap_mw is None else Milliwatts(cap_mw))
            if figures[-1]:
                usage[GpuUuid(uuid)] = usage_of(*figures)
        note = JobNote(facts_from_text(key, facts), started, ended, asked, Outcome(outcome), rule, gpus)
        found.append(JobRecord(note, usage))
    return found
