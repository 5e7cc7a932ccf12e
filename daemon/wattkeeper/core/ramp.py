"""Ceilings that nodes take on, and leave, one after another, and the moments at which time changes an answer.

A thousand nodes that changed their limits in one second would be a step in the room's power. So each node has a slot
from 0 up to 1, by a hash of its name: it takes a ceiling on ``ramp * (1 - slot)`` before the ceiling's time and leaves
it ``ramp * slot`` after. At the ceiling's start all nodes have it. Slots are spread as evenly as a hash spreads them:
of 2,000 nodes the share that has moved is within 0.05 of a straight ramp's at every moment (Dvoretzky, Kiefer and
Wolfowitz: but for one set of names in ten thousand).
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from wattkeeper.core.match import Match, match
from wattkeeper.core.policy import Ceiling
from wattkeeper.core.schedule import DAY_S, HORIZON_DAYS, Schedule
from wattkeeper.model import Conditions, GpuInfo, JobFacts
from wattkeeper.units import format_duration


@dataclass(frozen=True, slots=True)
class Ramped:
    """Whether a ceiling holds on this node: as ``Match``, and up to when that stands as far as time goes.

    ``ramping``: words, where it holds outside of its own time; else empty.
    """

    value: bool | None
    pending: frozenset[str] = frozenset()
    next_change: float | None = None
    ramping: str = ""


def slot(node: str) -> float:
    """The node's place in every ramp, from 0 up to, not including, 1; of its name alone, and the same in each release.

    The first 53 bits of SHA-256 of the name: what a float holds exactly.
    """
    digest = hashlib.sha256(node.encode(errors="surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def lead_and_lag(ramp_s: int, node: str) -> tuple[int, int]:
    """By how many whole seconds a node takes a ceiling on before its time, and how many after it still has it."""
    place = slot(node)
    return math.ceil(ramp_s * (1 - place)), math.floor(ramp_s * place)


def next_edge(schedules: Iterable[Schedule], conditions: Conditions) -> float | None:
    """The first moment after now at which one of the schedules turns; None without schedules.

    Where none turns in the time that they look ahead, the end of that time: there one has to look again.
    """
    distinct = dict.fromkeys(schedules)
    if not distinct:
        return None
    edges = [schedule.next_edge(conditions.now_at, conditions.zone) for schedule in distinct]
    look_again = math.floor(conditions.now_at) + (HORIZON_DAYS - 2) * DAY_S  # days may begin late, or be shorter
    return float(min((edge for edge in edges if edge is not None), default=look_again))


def match_ramped(ceiling: Ceiling, job: JobFacts | None, gpu: GpuInfo, conditions: Conditions) -> Ramped:
    """Whether the ceiling holds now on the node of the job, or of the conditions where no job is there.

    It does where its ``when`` fits now, did ``lag`` ago, will in ``lead``, or at any time between: this is what
    taking on early and leaving late come to, whatever schedules the ``when`` joins or negates.
    """
    now = match(ceiling.when, job, gpu, conditions)
    if not ceiling.ramp_s or not now.schedules:
        return Ramped(now.value, now.pending, next_edge(now.schedules, conditions))
    lead, lag = lead_and_lag(ceiling.ramp_s, (job.node if job else "") or conditions.node)
    second = math.floor(conditions.now_at)
    seen: list[tuple[float, Match]] = []
    edges: list[float] = []
    at: float | None = float(second - lag)
    while at is not None and at <= second + lead:
        there = replace(conditions, now_at=at)
        seen.append((at, match(ceiling.when, job, gpu, there)))
        at = next_edge(seen[-1][1].schedules, there)
        edges += [] if at is None else [at]
    value, pending = _any(then for _, then in seen)
    late = any(then.value is not False for when_at, then in seen if when_at <= second)
    turn = f"leaves {format_duration(lag)} late" if late else f"takes on {format_duration(lead)} early"
    ramping = f"which this node {turn} (ramp)" if now.value is False and value is not False else ""
    values = [then.value for _, then in seen]
    return Ramped(value, pending, _next_change(values, edges, second, (lead, lag)), ramping)


def _next_change(values: list[bool | None], edges: list[float], second: int, reach: tuple[int, int]) -> float | None:
    """Up to when an answer from ``values`` stands, each of which goes up to its edge.

    An edge comes into sight ``lead`` before it and goes out of it ``lag`` after; the words may turn at it.
    """
    if not edges:
        return None
    lead, lag = reach
    ahead = [edge for edge in edges if edge > second]
    if True in values:
        last = max(at for at, value in enumerate(values) if value is True)
        return min([edges[last] + lag, *ahead])
    if None in values:
        return min([edges[0] + lag, edges[-1] - lead, *ahead])
    return edges[-1] - lead


def _any(parts: Iterable[Match]) -> tuple[bool | None, frozenset[str]]:
    """Kleene's or, with the fields on which an open answer hinges."""
    pending: frozenset[str] = frozenset()
    for part in parts:
        if part.value is True:
            return True, frozenset()
        pending |= part.pending
    return (None, pending) if pending else (False, frozenset())
