"""Days as people name them: ``2026-11-01``, ``2026-11``, ``today``, ``yesterday``, ``7d``, ``4w``."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import click

from wattkeeper.system.clock import SystemClock

_BACK = re.compile(r"(?P<count>[0-9]{1,4})(?P<unit>[dw])", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Days:
    """The first and the last of the days that a word names."""

    first: date
    last: date


class DaysType(click.ParamType[Days]):
    """Reads such a word by this machine's clock and time zone."""

    name = "days"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Days:
        """``7d`` is today and the six days before; ``2026-11`` the whole month."""
        if isinstance(value, Days):
            return value
        text = str(value)
        try:
            found = read_days(text, today())
        except (ValueError, OverflowError) as error:
            self.fail(f"'{text}' is no day: {error}", param, ctx)
        if found is None:
            self.fail(f"'{text}' is no day (2026-11-01, 2026-11, today, yesterday, 7d, 4w)", param, ctx)
        return found


def today() -> date:
    """The day it is here."""
    return datetime.fromtimestamp(SystemClock().wall(), UTC).astimezone().date()


def read_days(text: str, now: date) -> Days | None:
    """The days that a word names on the day ``now``; None where it is nothing of the kind. Raises ValueError."""
    back = _BACK.fullmatch(text)
    if back is not None:
        days = int(back["count"]) * (7 if back["unit"] == "w" else 1)
        return Days(now - timedelta(days=days - 1), now) if days else None
    if text in {"today", "yesterday"}:
        day = now - timedelta(days=text == "yesterday")
        return Days(day, day)
    if _DAY.fullmatch(text):
        return Days(date.fromisoformat(text), date.fromisoformat(text))
    if _MONTH.fullmatch(text):
        first = date.fromisoformat(f"{text}-01")
        return Days(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1))
    return None


def begins_at(day: date) -> float:
    """Unix time of a day's midnight here."""
    return datetime(day.year, day.month, day.day).astimezone().timestamp()
