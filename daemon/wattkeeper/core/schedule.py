"""When a schedule holds: windows of local time, and the moments at which they open and close.

All times are whole Unix seconds; a window holds from its first second up to, and not including, its end. A local time
that a zone skips (clocks go forward) is the moment of the change; one that it repeats (clocks go back) is its first
pass. So each local time is one moment, later times are never earlier moments, windows that touch on the clock touch
in time, and every window opens and closes once.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

from wattkeeper.core.cron import Cron

DAY_S = 86_400
DAY_MINUTES = 1_440
HORIZON_DAYS = 400
"""How far ahead ``next_edge`` looks. Whoever gets None from it looks again before that time has passed."""

LONGEST_S = 7 * DAY_S
"""The longest window that a cron line may open."""

EVERY_MONTH = frozenset(range(1, 13))
EVERY_DAY = frozenset(range(7))

Window = tuple[int, int]
"""From, and up to but not including; Unix seconds."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Months (1 to 12), days (0: Monday) and hours at which something holds, or a cron line and for how long after it.

    ``hours``: pairs of minutes after midnight; an end beyond 1440 is on the day after, and the window belongs to the
    day on which it begins. With ``cron`` the rest does not count: a window opens whenever it fires, for ``for_s``
    seconds (at least 1). ``zone`` None: the site's.
    """

    months: frozenset[int] = EVERY_MONTH
    days: frozenset[int] = EVERY_DAY
    hours: tuple[tuple[int, int], ...] = ((0, DAY_MINUTES),)
    cron: Cron | None = None
    for_s: int = 0
    zone: tzinfo | None = None

    def active(self, at: float, zone: tzinfo) -> bool:
        """Whether it holds at that Unix time. ``zone``: the site's, for a schedule that has none of its own."""
        second = math.floor(at)
        return any(start <= second < end for start, end in self._around(second, self.zone or zone, 1))

    def next_edge(self, after: float, zone: tzinfo) -> int | None:
        """The first moment later than ``after`` at which ``active`` turns; None: not within ``HORIZON_DAYS``."""
        second = math.floor(after)
        last = _day_of(second, self.zone or zone) + timedelta(days=HORIZON_DAYS)
        beyond = instant(last, 0, self.zone or zone)
        for start, end in merged(self._around(second, self.zone or zone, HORIZON_DAYS)):
            edge = start if start > second else end
            if edge > second:
                return edge if edge < beyond else None
        return None

    def windows(self, first: float, last: float, zone: tzinfo) -> Iterator[Window]:
        """The windows that overlap the time from ``first`` up to ``last``, cut to it, merged and in order."""
        start, end = math.floor(first), math.floor(last)
        for opens, closes in merged(self._around(start, self.zone or zone, (end - start) // DAY_S + 2)):
            window = max(opens, start), min(closes, end)
            if window[0] < window[1]:
                yield window

    def ever(self) -> bool:
        """False where no day is one of its days: the 30th of February. Looks at all that the calendar has."""
        days = (date(2000, 1, 1) + timedelta(days=n) for n in range(28 * 366))
        return any(self._on(day) for day in days)

    def _on(self, day: date) -> bool:
        if self.cron is not None:
            return self.cron.fires_on(day)
        return day.month in self.months and day.weekday() in self.days

    def _around(self, second: int, zone: tzinfo, days: int) -> Iterator[Window]:
        """All windows that could matter from ``second`` on, for so many days; in order of their starts."""
        before = self.for_s // DAY_S + 2
        today = _day_of(second, zone)
        for n in range(-before, days + 1):
            day = today + timedelta(days=n)
            if self._on(day):
                yield from _windows_of(self, zone, day)


@lru_cache(maxsize=4096)
def _windows_of(schedule: Schedule, zone: tzinfo, day: date) -> tuple[Window, ...]:
    """What opens on one of its days."""
    if schedule.cron is None:
        pairs = ((instant(day, start, zone), instant(day, end, zone)) for start, end in schedule.hours)
        return tuple(merged(sorted(pairs)))
    midnight = instant(day, 0, zone)
    if instant(day + timedelta(days=1), 0, zone) - midnight == DAY_S:
        return tuple((midnight + start, midnight + end) for start, end in _runs(schedule.cron, schedule.for_s))
    starts = (instant(day, minute, zone) for minute in schedule.cron.times())
    return tuple(merged((start, start + schedule.for_s) for start in starts))


@lru_cache(maxsize=256)
def _runs(cron: Cron, for_s: int) -> tuple[Window, ...]:
    """The windows of a day without a change of clocks, in seconds after its midnight."""
    return tuple(merged((minute * 60, minute * 60 + for_s) for minute in cron.times()))


def merged(windows: Iterable[Window]) -> Iterator[Window]:
    """Windows in order of their starts, those that overlap or touch made one, empty ones left out."""
    begun: Window | None = None
    for start, end in windows:
        if end <= start:
            continue
        if begun is not None and start <= begun[1]:
            begun = (begun[0], max(begun[1], end))
            continue
        if begun is not None:
            yield begun
        begun = (start, end)
    if begun is not None:
        yield begun


def instant(day: date, minute: int, zone: tzinfo) -> int:
    """The Unix second at which clocks in ``zone`` first show so many minutes after a day's midnight, or pass it."""
    local = datetime.combine(day, time()) + timedelta(minutes=minute)
    moment = local.replace(tzinfo=zone)
    first = moment.astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == local:
        return int(first.timestamp())
    low, high = int(local.replace(tzinfo=zone, fold=1).timestamp()), int(first.timestamp())
    offset = _offset(high, zone)
    while high - low > 1:  # the change of clocks is later than low, and at high it has been
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(middle, zone) == offset else (middle, high)
    return high


def _offset(second: int, zone: tzinfo) -> timedelta | None:
    return datetime.fromtimestamp(second, zone).utcoffset()


def _day_of(second: int, zone: tzinfo) -> date:
    return datetime.fromtimestamp(second, zone).date()
