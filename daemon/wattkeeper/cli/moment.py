"""Moments as people write them: ``2027-07-01T13:00``, with an offset from UTC or in the site's zone."""

from datetime import datetime, timedelta, tzinfo

import click

from wattkeeper.core.schedule import instant


class MomentType(click.ParamType[datetime]):
    """A day and a time of day; without an offset it is for the caller to say whose clock shows it."""

    name = "moment"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """ISO 8601, of the years 1971 to 2999."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value).strip())
        except ValueError:
            self.fail(f"'{value}' is no moment (2027-07-01T13:00, 2027-07-01T13:00+02:00)", param, ctx)
        if not 1971 <= moment.year <= 2999:
            self.fail(f"'{value}' is out of bounds (the years 1971 to 2999)", param, ctx)
        return moment


def unix(moment: datetime, zone: tzinfo) -> float:
    """Its Unix time. Without an offset: when clocks in that zone first show it, or pass it."""
    if moment.tzinfo is not None:
        return moment.timestamp()
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    minute, rest = divmod(moment - midnight, timedelta(minutes=1))
    return instant(moment.date(), minute, zone) + rest.total_seconds()


def written(at: float, zone: tzinfo) -> str:
    """``2027-07-01 13:00 +02:00``, with seconds where there are some."""
    moment = datetime.fromtimestamp(at, zone)
    offset = moment.isoformat()[-6:] if moment.utcoffset() else "UTC"
    return f"{moment:%Y-%m-%d %H:%M}{f':{moment:%S}' if moment.second else ''} {offset}"


def iso(at: float, zone: tzinfo) -> str:
    """ISO 8601 with the offset, for programs."""
    return datetime.fromtimestamp(at, zone).isoformat()
