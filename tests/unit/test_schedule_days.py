"""Cron lines as cron reads them, windows on the days on which clocks change, and zones."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from wattkeeper.core.cron import CronError, parse_cron
from wattkeeper.core.schedule import HORIZON_DAYS, Schedule
from wattkeeper.system.zones import machine_zone, zone_name, zone_named

ZURICH = ZoneInfo("Europe/Zurich")
SUMMER_PEAK = Schedule(frozenset({6, 7, 8, 9}), frozenset(range(5)), ((720, 1080),))


def at(text: str) -> float:
    """A time in Zurich, or with an offset anywhere."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZURICH)).timestamp()


def spans(schedule: Schedule, first: str, last: str) -> list[str]:
    found = schedule.windows(at(first), at(last), ZURICH)
    return [" to ".join(datetime.fromtimestamp(t, ZURICH).strftime("%d %H:%M%z") for t in window) for window in found]


def test_a_working_week_in_summer() -> None:
    assert not SUMMER_PEAK.active(at("2027-05-31T13:00"), ZURICH)  # a Monday in May
    assert SUMMER_PEAK.active(at("2027-06-01T12:00"), ZURICH)
    assert SUMMER_PEAK.active(at("2027-06-01T17:59:59.9"), ZURICH)
    assert not SUMMER_PEAK.active(at("2027-06-01T18:00"), ZURICH)
    assert not SUMMER_PEAK.active(at("2027-06-05T13:00"), ZURICH)  # a Saturday
    assert SUMMER_PEAK.next_edge(at("2027-06-04T18:00"), ZURICH) == at("2027-06-07T12:00")
    assert SUMMER_PEAK.next_edge(at("2027-10-01T00:00"), ZURICH) == at("2028-06-01T12:00")
    assert SUMMER_PEAK.active(at("2027-06-01T12:00"), UTC) is False  # it is 10:00 there


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    fridays = Schedule(days=frozenset({4}), hours=((1320, 1800),))
    assert spans(fridays, "2027-06-01T00:00", "2027-06-08T00:00") == ["04 22:00+0200 to 05 06:00+0200"]
    last_of_month = Schedule(months=frozenset({6}), hours=((1320, 1800),))
    assert last_of_month.active(at("2027-07-01T05:59"), ZURICH)
    assert not last_of_month.active(at("2027-06-01T05:59"), ZURICH)


@pytest.mark.parametrize(
    ("hours", "spring", "autumn"),
    [
        ((120, 180), [], ["31 02:00+0200 to 31 03:00+0100"]),
        ((60, 150), ["28 01:00+0100 to 28 03:00+0200"], ["31 01:00+0200 to 31 02:30+0200"]),
        ((150, 240), ["28 03:00+0200 to 28 04:00+0200"], ["31 02:30+0200 to 31 04:00+0100"]),
        ((135, 165), [], ["31 02:15+0200 to 31 02:45+0200"]),
        ((0, 1440), ["28 00:00+0100 to 29 00:00+0200"], ["31 00:00+0200 to 01 00:00+0100"]),
    ],
)
def test_what_clocks_skip_or_repeat_counts_once(hours: tuple[int, int], spring: list[str], autumn: list[str]) -> None:
    sundays = Schedule(days=frozenset({6}), hours=(hours,))
    assert spans(sundays, "2027-03-28T00:00", "2027-03-29T12:00") == spring
    assert spans(sundays, "2027-10-31T00:00", "2027-11-01T12:00") == autumn


def test_a_cron_line_in_a_skipped_or_repeated_hour_fires_once() -> None:
    nightly = Schedule(cron=parse_cron("30 2 * * *"), for_s=3600)
    assert spans(nightly, "2027-03-28T00:00", "2027-03-29T00:00") == ["28 03:00+0200 to 28 04:00+0200"]
    assert spans(nightly, "2027-10-31T00:00", "2027-11-01T00:00") == ["31 02:30+0200 to 31 02:30+0100"]


def test_its_own_zone_wins() -> None:
    abroad = Schedule(hours=((720, 1080),), zone=ZoneInfo("America/New_York"))
    assert abroad.active(at("2027-07-01T12:00-04:00"), ZURICH)
    assert not abroad.active(at("2027-07-01T12:00"), ZURICH)


def test_the_search_for_an_edge_ends() -> None:
    assert Schedule().next_edge(at("2027-07-01T12:00"), ZURICH) is None
    leap = Schedule(cron=parse_cron("0 0 29 2 *"), for_s=3600)
    assert leap.next_edge(at("2025-01-01T00:00"), ZURICH) is None
    assert leap.next_edge(at("2028-02-29T00:00") - (HORIZON_DAYS - 1) * 86_400, ZURICH) == at("2028-02-29T00:00")
    assert leap.ever()
    assert not Schedule(cron=parse_cron("0 0 30 2 *"), for_s=3600).ever()


@pytest.mark.parametrize(
    ("line", "fires", "silent"),
    [
        ("0 12 * * mon-fri", ["2027-06-04", "2027-06-07"], ["2027-06-05", "2027-06-06"]),
        ("0 12 * * 1-5", ["2027-06-04", "2027-06-07"], ["2027-06-05", "2027-06-06"]),
        ("0 12 * * 0", ["2027-06-06"], ["2027-06-07", "2027-06-05"]),
        ("0 12 * * 7", ["2027-06-06"], ["2027-06-07", "2027-06-05"]),
        ("0 12 * * 5-7", ["2027-06-04", "2027-06-06"], ["2027-06-07"]),
        ("0 12 * * FRI-Mon", ["2027-06-04", "2027-06-06", "2027-06-07"], ["2027-06-08"]),
        ("0 12 * nov-feb *", ["2027-11-30", "2028-02-29"], ["2028-03-01", "2027-10-31"]),
        ("0 12 13 * fri", ["2027-06-13", "2027-06-04"], ["2027-06-14"]),  # crontab(5): either, where both are given
        ("0 12 */2 * fri", ["2027-06-11"], ["2027-06-04", "2027-06-13"]),  # and both, where one begins with *
        ("0 12 1-31/10 * *", ["2027-06-01", "2027-06-11", "2027-06-21"], ["2027-06-10"]),
    ],
)
def test_days_of_cron_lines(line: str, fires: list[str], silent: list[str]) -> None:
    cron = parse_cron(line)
    assert [day for day in fires + silent if cron.fires_on(date.fromisoformat(day))] == fires
    assert cron.times() == (720,)


def test_times_of_cron_lines() -> None:
    assert parse_cron("*/30 6-7,22 * * *").times() == (360, 390, 420, 450, 1320, 1350)
    assert parse_cron("5-59/20 0 * * *").times() == (5, 25, 45)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "0 fields"),
        ("0 12 * *", "4 fields"),
        ("0 12 * * mon 2027", "6 fields"),
        ("@daily", "1 fields"),
        ("60 * * * *", "minute: 60 is not within 0 to 59"),
        ("0 24 * * *", "hour: 24 is not within 0 to 23"),
        ("0 0 0 * *", "day of the month: 0 is not within 1 to 31"),
        ("0 0 * 13 *", "month: 13 is not within 1 to 12"),
        ("0 0 * * 8", "day of the week: 8 is not within 0 to 7"),
        ("0 0 * * mno", "day of the week: 'mno' is no value"),
        ("0 0 L * *", "day of the month: 'l' is no value"),
        ("50-10 0 * * *", "minute: 50-10 runs backwards"),
        ("5/2 0 * * *", "minute: '5/2' has a step without a range"),
        ("*/0 0 * * *", "minute: a step of 0"),
        ("*-5 0 * * *", "minute: '*-5' is no value"),
        ("0,,5 0 * * *", "minute: '' is no value"),
        ("٣ 0 * * *", "minute: '٣' is no value"),
    ],
)
def test_what_is_no_cron_line(line: str, said: str) -> None:
    with pytest.raises(CronError) as caught:
        parse_cron(line)
    assert said in str(caught.value)


def test_zones_have_names() -> None:
    assert zone_named("Europe/Zurich") is ZURICH
    for wrong in ("Europe/Zurihc", "../../etc/passwd", "/etc/localtime", "Europe", "", "Europe/Zurich\n", "x" * 300):
        assert zone_named(wrong) is None


def test_the_machines_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    july, january = datetime(2027, 7, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    for text in ("Europe/Zurich", ":Europe/Zurich", "/usr/share/zoneinfo/Europe/Zurich", "CET-1CEST,M3.5.0,M10.5.0/3"):
        monkeypatch.setenv("TZ", text)
        offsets = [moment.astimezone(machine_zone()).utcoffset() for moment in (july, january)]
        assert offsets == [timedelta(hours=2), timedelta(hours=1)], text
    for text in ("", "Nowhere/At/All", "UTC", "/no/such/file"):
        monkeypatch.setenv("TZ", text)
        assert july.astimezone(machine_zone()).utcoffset() == timedelta(0), text
    monkeypatch.delenv("TZ")
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/America/New_York")
    assert zone_name(machine_zone(link)) == "America/New_York"
    copied = tmp_path / "copied"
    copied.write_bytes(Path("/usr/share/zoneinfo/America/New_York").read_bytes())
    assert july.astimezone(machine_zone(copied)).utcoffset() == timedelta(hours=-4)
    assert machine_zone(tmp_path / "missing").utcoffset(july) == timedelta(0)
