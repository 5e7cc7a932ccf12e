"""``schedule``: times at which a rule or ceiling holds, by the calendar or by a cron line.

Zones come from the machine's tables: that is all that is looked up outside of the file.
"""

from collections.abc import Callable
from datetime import tzinfo
from itertools import chain

from wattkeeper.config.policy_shape import (
    CALENDAR,
    CRON,
    DAY,
    DAY_NAMES,
    HOUR,
    HOURS,
    MONTH,
    MONTH_NAMES,
    SCHEDULE,
    SCHEDULE_FOR,
)
from wattkeeper.config.walk import Walk, guess, join
from wattkeeper.config.yaml_lines import Items, Node, Table, Text
from wattkeeper.core.cron import Cron, CronError, parse_cron
from wattkeeper.core.schedule import DAY_MINUTES, EVERY_DAY, EVERY_MONTH, Schedule
from wattkeeper.system.zones import zone_named
from wattkeeper.text import printable

_ZONES_ALLOWED = "Europe/Zurich, UTC"


def read_schedules(walk: Walk, node: Node, path: str) -> tuple[Schedule, ...]:
    """One schedule, or a list of which any will do; what is wrong with one is noted, and it is left out."""
    nodes = walk.items(node, path) if isinstance(node, Items) else (node,)
    several = len(nodes) > 1
    found = (_schedule(walk, n, f"{path}[#{at}]" if several else path) for at, n in enumerate(nodes, start=1))
    return tuple(dict.fromkeys(schedule for schedule in found if schedule is not None))


def read_zone(walk: Walk, node: Node, path: str) -> tzinfo | None:
    """A time zone; None where a problem was noted."""
    text = walk.text(node, path, _ZONES_ALLOWED)
    zone = zone_named(text) if text is not None else None
    if text is not None and zone is None:
        shown = printable(text, 60)
        walk.error(node, path, f"'{shown}' is no time zone in this machine's tables (tzdata)", _ZONES_ALLOWED)
    return zone


def _schedule(walk: Walk, node: Node, path: str) -> Schedule | None:
    before = len(walk.problems)
    known = {name: value for name, (_, value) in walk.table(node, path, SCHEDULE.names).items()}
    if isinstance(node, Table) and not set(known) & {*SCHEDULE.some, "for"} and len(walk.problems) == before:
        walk.error(node, path, "says no time", "months, days, hours; or cron and for")
    zone = read_zone(walk, known["zone"], join(path, "zone")) if "zone" in known else None
    if "cron" in known or "for" in known:
        cron, for_s = _cron(walk, node, known, path)
        schedule = Schedule(cron=cron, for_s=for_s, zone=zone)
    else:
        schedule = Schedule(
            months=_numbers(walk, known, path, "months", _month, 12, 1) or EVERY_MONTH,
            days=_numbers(walk, known, path, "days", _day, 7, 0) or EVERY_DAY,
            hours=_hours(walk, known, path) or Schedule().hours,
            zone=zone,
        )
    return schedule if len(walk.problems) == before else None


def _cron(walk: Walk, node: Node, known: dict[str, Node], path: str) -> tuple[Cron | None, int]:
    """The line and for how long a window is open after each time it fires."""
    for name in CALENDAR:
        if name in known:
            walk.error(known[name], join(path, name), "does not go with cron: the line says when it begins")
    for name, other in (("cron", "for"), ("for", "cron")):
        if other not in known:
            walk.error(node, path, f"'{other}' is missing: {name} needs it", '{cron: "0 12 * * mon-fri", for: 6h}')
    text = walk.text(known["cron"], join(path, "cron"), CRON.allowed) if "cron" in known else None
    cron = None
    try:
        cron = parse_cron(text) if text is not None else None
    except CronError as error:
        walk.error(known["cron"], join(path, "cron"), f"not a cron line: {printable(str(error))}", CRON.allowed)
    seconds = None
    if "for" in known:
        seconds = walk.duration(known["for"], join(path, "for"), *SCHEDULE_FOR.bounds)
    return cron, int(seconds or 0)


def _numbers(
    walk: Walk, known: dict[str, Node], path: str, key: str, read: Callable[[str], int | None], many: int, least: int
) -> frozenset[int]:
    """Months or days: names and ranges of them, which may run over the end of the year or week."""
    here = join(path, key)
    allowed = MONTH.allowed if key == "months" else DAY.allowed
    found: set[int] = set()
    for text in walk.one_or_more(known[key], here) if key in known else ():
        words = [word.strip().lower() for word in text.value.split("-")]
        if "," in text.value:
            walk.error(text, here, f"'{printable(text.value, 60)}' holds a comma: write a list, [a, b]")
            continue
        ends = [read(word) for word in words]
        if len(words) > 2 or None in ends:
            wrong = next((word for word, end in zip(words, ends, strict=True) if end is None), "")
            names = [short for short, _ in (MONTH_NAMES if key == "months" else DAY_NAMES)]
            problem = f"'{printable(text.value, 60)}' is no {key[:-1]} or range of {key}"
            walk.error(text, here, f"{problem}{guess(wrong, names) if wrong else ''}", allowed)
            continue
        first, last = ends[0] or 0, ends[-1] or 0
        found.update((first - least + n) % many + least for n in range((last - first) % many + 1))
    return frozenset(found)


def _month(word: str) -> int | None:
    if word.isascii() and word.isdigit() and len(word) <= 2 and 1 <= int(word) <= 12:
        return int(word)
    return _index(word, MONTH_NAMES)


def _day(word: str) -> int | None:
    """Monday is 0. Numbers are refused: half of the world counts from Monday."""
    at = _index(word, DAY_NAMES)
    return None if at is None else at - 1


def _index(word: str, names: tuple[tuple[str, str], ...]) -> int | None:
    """The place of a name, short or whole, counted from 1."""
    return next((at for at, pair in enumerate(names, 1) if word in pair), None)


def _hours(walk: Walk, known: dict[str, Node], path: str) -> tuple[tuple[int, int], ...]:
    """Ranges of the day in minutes after midnight; one that ends no later than it begins ends on the day after."""
    here = join(path, "hours")
    texts = walk.one_or_more(known["hours"], here) if "hours" in known else ()
    return tuple(sorted(set(chain.from_iterable(_range(walk, text, here) for text in texts))))


def _range(walk: Walk, text: Text, path: str) -> list[tuple[int, int]]:
    found = HOURS.fullmatch(text.value.strip())
    shown = f"'{printable(text.value, 60)}'"
    if found is None:
        walk.error(text, path, f"{shown} is no range of hours", HOUR.allowed)
        return []
    hour, minute, end_hour, end_minute = map(int, found.groups())
    start, end = hour * 60 + minute, end_hour * 60 + end_minute
    if minute > 59 or end_minute > 59 or start >= DAY_MINUTES or end > DAY_MINUTES:
        walk.error(text, path, f"{shown}: there is no such time of day", HOUR.allowed)
        return []
    if start == end:
        walk.error(text, path, f"{shown} is empty: the whole day is 00:00-24:00", HOUR.allowed)
        return []
    return [(start, end if end > start else end + DAY_MINUTES)]
