"""When a cron line fires: crontab(5)'s five fields, read as cron reads them.

Days of the week count from Sunday (0 or 7). Where both the day of the month and the day of the week are restricted
(neither begins with ``*``) a day fits if either does; else both must.
"""

import re
from dataclasses import dataclass
from datetime import date

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_PART = re.compile(r"(?P<first>\*|[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?(?:/(?P<step>[0-9]{1,2}))?")


class CronError(ValueError):
    """Why a line is no cron line, in words that name the field."""


@dataclass(frozen=True, slots=True)
class Cron:
    """Minutes of the hour, hours, days of the month, months and days of the week (0: Sunday) on which it fires.

    ``either``: a day fits by its number or by its weekday; else it must by both.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool = False

    def fires_on(self, day: date) -> bool:
        """Whether it fires at all on that day."""
        by_number, by_name = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        fits = by_number or by_name if self.either else by_number and by_name
        return fits and day.month in self.months

    def times(self) -> tuple[int, ...]:
        """Its times on a day on which it fires, in minutes after midnight, in order."""
        return tuple(sorted(hour * 60 + minute for hour in self.hours for minute in self.minutes))


@dataclass(frozen=True, slots=True)
class _Field:
    """What may stand in a place. ``names`` begin at ``least``; ``turns``: a range may run over the end."""

    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()
    turns: bool = False

    def number(self, word: str) -> int:
        """The value of a number or name. Raises ``CronError``."""
        if word in self.names:
            return self.least + self.names.index(word)
        if not word.isdigit():
            raise CronError(f"{self.name}: '{word}' is no value")
        if not self.least <= int(word) <= self.most:
            raise CronError(f"{self.name}: {word} is not within {self.least} to {self.most}")
        return int(word)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, MONTHS, turns=True),
    _Field("day of the week", 0, 7, WEEKDAYS, turns=True),
)


def parse_cron(text: str) -> Cron:
    """``0 12 * * mon-fri``. Raises ``CronError`` with the field that is wrong; names may be in any case."""
    words = text.lower().split()
    if len(words) != len(_FIELDS):
        raise CronError(f"{len(words)} fields where cron has five: minute hour day-of-month month day-of-week")
    minutes, hours, days, months, weekdays = (_values(f, word) for f, word in zip(_FIELDS, words, strict=True))
    either = not words[2].startswith("*") and not words[4].startswith("*")
    return Cron(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either)


def _values(field: _Field, word: str) -> frozenset[int]:
    """The values that one field names: a list, with commas, of ``*``, numbers, names, ranges and steps."""
    found: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        if match is None or (match["first"] == "*" and match["last"]):
            raise CronError(f"{field.name}: '{part[:40]}' is no value, range or step")
        if match["step"] and match["first"] != "*" and not match["last"]:
            raise CronError(f"{field.name}: '{part}' has a step without a range: {match['first']}-{field.most}/…")
        step = int(match["step"] or 1)
        if not step:
            raise CronError(f"{field.name}: a step of 0 in '{part}'")
        found.update(_range(field, match["first"], match["last"])[::step])
    return frozenset(found)


def _range(field: _Field, first: str, last: str | None) -> list[int]:
    if first == "*":
        return list(range(field.least, field.most + (field.name != "day of the week")))
    start = field.number(first)
    end = field.number(last) if last else start
    if start <= end:
        return list(range(start, end + 1))
    if not field.turns:
        raise CronError(f"{field.name}: {first}-{last} runs backwards")
    top = 6 if field.name == "day of the week" else field.most
    return [*range(start, top + 1), *range(field.least, end + 1)]
