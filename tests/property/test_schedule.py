"""Windows, edges and ``active`` say the same, in every zone and over every change of clocks."""

import dataclasses
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from tests.property import schedules as made

from wattkeeper.core.schedule import DAY_S, HORIZON_DAYS, Schedule, instant


@given(made.schedules, made.moments, made.zones, st.floats(0, 1, exclude_max=True))
def test_every_edge_turns_it_and_between_edges_it_stands(
    schedule: Schedule, at: int, zone: tzinfo, part: float
) -> None:
    edge = schedule.next_edge(at + part, zone)
    now = schedule.active(at + part, zone)
    until = at + (HORIZON_DAYS - 2) * DAY_S if edge is None else edge
    assert until > at
    between = [at + (until - at) * n // 17 for n in range(17)]
    assert {schedule.active(moment, zone) for moment in [*between, until - 1]} == {now}
    if edge is not None:
        assert schedule.active(edge, zone) is not now


@given(made.schedules, made.moments, st.integers(0, 40 * DAY_S), made.zones)
def test_windows_are_what_lies_between_edges(schedule: Schedule, first: int, span: int, zone: tzinfo) -> None:
    last = first + span
    windows = list(schedule.windows(first, last, zone))
    edges = [first] if schedule.active(first, zone) and span else []
    edge = schedule.next_edge(first, zone)
    while edge is not None and edge < last:
        edges.append(edge)
        edge = schedule.next_edge(edge, zone)
    if len(edges) % 2:
        edges.append(last)
    assert [moment for window in windows for moment in window] == edges


@given(made.schedules, made.moments)
def test_where_clocks_never_change_a_window_is_what_the_clock_shows(schedule: Schedule, at: int) -> None:
    plain = dataclasses.replace(schedule, zone=UTC)
    assert plain.active(at, UTC) is _by_the_clock(plain, at)


def _by_the_clock(schedule: Schedule, at: int) -> bool:
    """Minute by minute, without arithmetic on days."""
    now = datetime.fromtimestamp(at, UTC)
    if schedule.cron is None:
        ends = [(now, 0), (now - timedelta(days=1), 1440)]
        return any(
            start <= (now.hour * 60 + now.minute) + late < end
            for day, late in ends
            for start, end in schedule.hours
            if day.month in schedule.months and day.weekday() in schedule.days
        )
    minute = at - at % 60
    while minute > at - schedule.for_s:
        then = datetime.fromtimestamp(minute, UTC)
        cron = schedule.cron
        if then.minute in cron.minutes and then.hour in cron.hours and then.month in cron.months:
            fits = then.day in cron.days, (then.weekday() + 1) % 7 in cron.weekdays
            if any(fits) if cron.either else all(fits):
                return True
        minute -= 60
    return False


@given(made.moments, made.zones)
@example(int(datetime(2011, 12, 29, 12, tzinfo=UTC).timestamp()), made.ZONES[-1])
def test_later_on_the_clock_is_never_earlier_in_time(at: int, zone: tzinfo) -> None:
    day = datetime.fromtimestamp(at, zone).date()
    moments = [instant(day, minute, zone) for minute in range(0, 3 * 1440, 5)]
    assert all(a <= b for a, b in pairwise(moments))
    shown = [datetime.fromtimestamp(moment, zone).replace(tzinfo=None) for moment in moments]
    written = [datetime.combine(day, datetime.min.time()) + timedelta(minutes=m) for m in range(0, 3 * 1440, 5)]
    for moment, clock, local in zip(moments, shown, written, strict=True):
        if clock != local:  # it was skipped: the clock jumps to where it is
            just_before = datetime.fromtimestamp(moment - 1, zone).replace(tzinfo=None)
            assert just_before < local < clock


@given(made.moments, made.zones, st.integers(0, 95), st.integers(1, 95))
def test_windows_that_touch_on_the_clock_leave_no_gap_and_never_overlap(
    at: int, zone: tzinfo, begins: int, long: int
) -> None:
    start, end = begins * 15, (begins + long) * 15
    one = Schedule(hours=((start, end),))
    rest = Schedule(hours=((end, start + 1440),) if end < 1440 else ((end - 1440, start),))
    assert one.active(at, zone) is not rest.active(at, zone)
