"""``schedule`` and ``ramp`` in YAML: what is read, and what is warned of. Mistakes: the golden policy of mistakes."""

from zoneinfo import ZoneInfo

import pytest

from wattkeeper.config.policy import parse_policies
from wattkeeper.config.settings import parse_settings
from wattkeeper.core.cron import parse_cron
from wattkeeper.core.policy import Ceiling, Rule
from wattkeeper.core.schedule import Schedule
from wattkeeper.errors import ConfigError


def schedules(text: str) -> tuple[Schedule, ...]:
    return rule(f"schedule: {text}").when.schedules()


def rule(when: str) -> Rule:
    policy, _ = parse_policies([("p", f"version: 1\ncaps:\n  - {{name: a, when: {{{when}}}, cap: 60%}}\n")])
    return policy.rules[0]


def ceiling(rest: str) -> Ceiling:
    policy, _ = parse_policies([("p", f"version: 1\nceilings:\n  - {{name: a, cap: 60%{rest}}}\n")])
    return policy.ceilings[0]


def warnings(when: str) -> list[str]:
    text = f"version: 1\ncaps:\n  - {{name: a, when: {{{when}}}, cap: 60%}}\n"
    return [str(problem) for problem in parse_policies([("p", text)])[1]]


def test_reads_what_the_design_shows() -> None:
    (peak,) = schedules('{months: jun-sep, days: mon-fri, hours: "12:00-18:00", zone: Europe/Zurich}')
    assert peak == Schedule(
        frozenset({6, 7, 8, 9}), frozenset(range(5)), ((720, 1080),), zone=ZoneInfo("Europe/Zurich")
    )
    (noon,) = schedules('{cron: "0 12 * * mon-fri", for: 6h}')
    assert noon == Schedule(cron=parse_cron("0 12 * * 1-5"), for_s=6 * 3600)


@pytest.mark.parametrize(
    ("text", "months"),
    [
        ("nov-feb", {11, 12, 1, 2}),
        ("[JAN, March]", {1, 3}),
        ("6-9", {6, 7, 8, 9}),
        ("dec", {12}),
        ("jan-dec", range(1, 13)),
    ],
)
def test_months(text: str, months: set[int]) -> None:
    assert schedules(f"{{months: {text}}}")[0].months == frozenset(months)


@pytest.mark.parametrize(
    ("text", "days"), [("fri-mon", {4, 5, 6, 0}), ("[Mon, wed-thu]", {0, 2, 3}), ("sunday", {6}), ("mon - tue", {0, 1})]
)
def test_days(text: str, days: set[int]) -> None:
    assert schedules(f"{{days: {text}}}")[0].days == frozenset(days)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("22:00-06:00", ((1320, 1800),)),
        ("12:00-18:00", ((720, 1080),)),
        ('["18:00-24:00", "6:30-08:00"]', ((390, 480), (1080, 1440))),
        ("18:00-00:00", ((1080, 1440),)),
    ],
)
def test_hours(text: str, hours: tuple[tuple[int, int], ...]) -> None:
    assert schedules(f"{{hours: {text}}}")[0].hours == hours


def test_several_schedules_are_alternatives_and_not_turns_them() -> None:
    assert len(schedules("[{days: sat}, {hours: 00:00-06:00}, {days: sat}]")) == 2
    assert rule("not: {schedule: {days: sat}}").when.schedules() == schedules("{days: sat}")


def test_ramps() -> None:
    scheduled = ", when: {schedule: {days: mon}}"
    assert ceiling(scheduled).ramp_s == 600
    assert ceiling(f"{scheduled}, ramp: 0").ramp_s == 0
    assert ceiling(f"{scheduled}, ramp: 0s").ramp_s == 0
    assert ceiling(f"{scheduled}, ramp: 1h").ramp_s == 3600
    assert ceiling(", when: {not: {schedule: {days: mon}}}").ramp_s == 600
    assert ceiling("").ramp_s == 0
    with pytest.raises(ConfigError, match="no schedule in `when`"):
        ceiling(", ramp: 5m")


def test_warns_of_times_that_never_or_always_are() -> None:
    never, always = "never holds: no day is one of its days", "always holds: leave the schedule out"
    path = "p:3: warning: caps[a].when.schedule: "
    assert warnings('schedule: {cron: "0 0 31 feb,apr *", for: 1h}') == [path + never]
    for text in ('{cron: "*/5 * * * *", for: 5m}', "{hours: 00:00-24:00}", "{days: mon-sun, months: jan-dec}"):
        assert warnings(f"schedule: {text}") == [path + always], text
    for text in ('{cron: "0 0 29 feb *", for: 1h}', "{hours: 00:00-23:59}", "{days: mon-sat}", "{months: feb-dec}"):
        assert warnings(f"schedule: {text}") == [], text


def test_rules_that_schedules_hide_are_found() -> None:
    def errors(first: str, second: str) -> int:
        text = f"version: 1\ncaps:\n  - {{name: a, {first}, cap: 60%}}\n  - {{name: b, {second}, cap: 70%}}\n"
        try:
            parse_policies([("p", text)])
        except ConfigError as error:
            return len(error.problems)
        return 0

    monday, night = "schedule: {days: mon}", "schedule: {hours: 22:00-06:00}"
    assert errors(f"when: {{{monday}}}", f"when: {{partition: x, {monday}}}") == 1
    assert errors("when: {partition: x}", f"when: {{partition: x, {night}}}") == 1
    assert errors(f"when: {{{monday}}}", f"when: {{{night}}}") == 0
    assert errors(f"when: {{{night}}}", "when: {partition: x}") == 0
    assert errors("when: {user: u}", f"when: {{{monday}, not: {{{monday}}}}}") == 1


def test_the_site_has_a_zone() -> None:
    assert parse_settings("s", "time_zone: Europe/Zurich").time_zone is ZoneInfo("Europe/Zurich")
    assert parse_settings("s", "time_zone: null").time_zone is None
    assert parse_settings("s", "").time_zone is None
