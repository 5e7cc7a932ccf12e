"""Strategies for schedules, zones and moments, with the days on which clocks change among them."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from wattkeeper.core.cron import Cron, parse_cron
from wattkeeper.core.schedule import Schedule

ZONES: tuple[tzinfo, ...] = (
    UTC,
    ZoneInfo("Europe/Zurich"),
    ZoneInfo("America/New_York"),
    ZoneInfo("Australia/Lord_Howe"),  # by half an hour
    ZoneInfo("Africa/Cairo"),  # at midnight
    ZoneInfo("America/Sao_Paulo"),  # at midnight, until 2019
    ZoneInfo("Asia/Kathmandu"),  # never, and is 5:45 off
    ZoneInfo("Pacific/Apia"),  # left out the 30th of December 2011
)
CRONS = ("0 12 * * mon-fri", "30 2 * * *", "*/20 1-3 * * *", "0 0 1 * sun", "15 23 */9 mar-apr,oct-nov *", "0 2 29 2 *")

zones = st.sampled_from(ZONES)
_changes = ("2027-03-28", "2027-10-31", "2027-03-14", "2027-11-07", "2027-04-04", "2027-10-03", "2027-04-30",
            "2027-10-29", "2018-11-04", "2018-02-18", "2011-12-30")  # fmt: skip
moments = st.one_of(
    st.integers(int(datetime(2010, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2035, 1, 1, tzinfo=UTC).timestamp())),
    st.builds(
        lambda day, off: int(datetime.fromisoformat(f"{day}T00:00Z").timestamp()) + off,
        st.sampled_from(_changes),
        st.integers(-86_400, 2 * 86_400),
    ),
)

_minutes = st.integers(0, 95).map(lambda n: n * 15)
_hours = st.builds(lambda start, long: (start, start + long), _minutes, st.integers(1, 96).map(lambda n: n * 15))


def _set(least: int, most: int) -> st.SearchStrategy[frozenset[int]]:
    everything = frozenset(range(least, most + 1))
    return st.frozensets(st.integers(least, most), min_size=1, max_size=6) | st.just(everything)


crons: st.SearchStrategy[Cron] = st.sampled_from(CRONS).map(parse_cron) | st.builds(
    Cron,
    minutes=st.frozensets(st.integers(0, 59), min_size=1, max_size=3),
    hours=_set(0, 23),
    days=_set(1, 31),
    months=_set(1, 12),
    weekdays=_set(0, 6),
    either=st.booleans(),
)
_lengths = st.sampled_from([60, 900, 3600, 6 * 3600, 25 * 3600, 7 * 86_400])
_zones = st.none() | zones
schedules: st.SearchStrategy[Schedule] = st.builds(
    Schedule,
    months=_set(1, 12),
    days=_set(0, 6),
    hours=st.lists(_hours, min_size=1, max_size=3, unique=True).map(lambda pairs: tuple(sorted(pairs))),
    zone=_zones,
) | st.builds(Schedule, cron=crons, for_s=_lengths, zone=_zones)
