"""Times of day in words for people, short ones: for one who reads them soon, on the site."""

from datetime import datetime, tzinfo


def shown_at(at: float, now_at: float, zone: tzinfo) -> str:
    """``18:00 CEST`` of a Unix time on the day of ``now_at``, else ``2027-07-02 06:00 CEST``; seconds where some."""
    moment = datetime.fromtimestamp(at, zone)
    today = moment.date() == datetime.fromtimestamp(now_at, zone).date()
    day = "" if today else f"{moment:%Y-%m-%d} "
    return f"{day}{moment:%H:%M}{f':{moment:%S}' if moment.second else ''} {moment:%Z}".rstrip()
