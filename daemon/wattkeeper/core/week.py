"""When a ``when`` can hold by its schedules alone: what a drawing of the week shows."""

import math

from wattkeeper.core.policy import When
from wattkeeper.core.schedule import Schedule, Window
from wattkeeper.model import Conditions


def open_windows(when: When, last: float, conditions: Conditions) -> list[Window]:
    """From the conditions' time up to ``last``: the windows in which some job or GPU could be what ``when`` is for."""
    found: list[Window] = []
    schedules = when.schedules()
    second, end = math.floor(conditions.now_at), math.floor(last)
    while second < end:
        edges = (schedule.next_edge(second, conditions.zone) for schedule in schedules)
        until = min([end, *(edge for edge in edges if edge is not None)])
        if _by_time(when, second, conditions) is not False:
            found.append((found.pop()[0] if found and found[-1][1] == second else second, until))
        second = until
    return found


def _by_time(when: When, second: int, conditions: Conditions) -> bool | None:
    """Kleene's and over the schedules and the ``not`` part; all else may be so or otherwise."""
    parts: list[bool | None] = []
    for selector in when.selectors:
        schedules = [pattern for pattern in selector.patterns if isinstance(pattern, Schedule)]
        parts.append(any(s.active(second, conditions.zone) for s in schedules) if schedules else None)
    if when.negated is not None:
        inner = _by_time(when.negated, second, conditions)
        parts.append(None if inner is None else not inner)
    return False if False in parts else None if None in parts else True
