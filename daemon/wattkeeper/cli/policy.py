"""``wattkeeper policy``: what a policy comes to, looked at as a whole."""

import sys
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.moment import iso
from wattkeeper.cli.output import print_json
from wattkeeper.errors import WattkeeperError
from wattkeeper.units import format_duration

if TYPE_CHECKING:
    from wattkeeper.config.settings import Settings
    from wattkeeper.core.policy import Ceiling, Policy, Rule
    from wattkeeper.core.schedule import Window

_DAYS = 7
_CELLS = 48
_CELL_MINUTES = 30
_FULL, _PART, _EMPTY = "█", "▒", "·"
_MANY = 3
"""Windows of a day that are written out beside the bar; of more, how many there are."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A rule or ceiling with a schedule, and its windows in the week."""

    kind: str
    part: "Rule | Ceiling"
    windows: "list[Window]"
    ramp_s: int = 0


@click.group(
    context_settings=HELP,
    epilog="""\b
Examples:
  wattkeeper policy week                         the policy in force on this node, from today on
  wattkeeper policy week new-policy.yaml --from 2027-07-01""",
)
def policy() -> None:
    """Look at a policy as a whole."""


@policy.command(
    context_settings=HELP,
    short_help="Draw when its rules and ceilings hold, over seven days.",
    epilog="""\b
Examples:
  wattkeeper policy week
  wattkeeper policy week new-policy.yaml --from 2027-07-01
  wattkeeper policy week --config site.yaml --json | jq '.parts[] | {name, windows}'

\b
Each line is a day and each cell half an hour: █ it holds, ▒ for a part of that time, · it does not.
Times are the site's (the setting time_zone, else this machine's zone), also for schedules with a zone of their own.
Where clocks go forward or back, cells show what they show on the clock; a repeated hour is its first pass.
A ramp comes before the start and after the end, on each node at its own time: it is not drawn.
Exit codes: 0 fine, also where nothing has a schedule; 1 the policy cannot be used; 2 wrong use.""",
)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="First day [today].")
@click.option("--config", type=click.Path(path_type=Path), help="Settings, for zone and policy [the installed ones].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def week(files: tuple[Path, ...], first: datetime | None, config: Path | None, as_json: bool) -> None:
    """Draw when the rules and ceilings that have a schedule hold, over seven days.

    FILEs, or folders of them, make one policy together; without them it is the one that the settings name. A rule
    that selects jobs as well is drawn as if there were such a job all the time.
    """
    from wattkeeper.cli.inforce import site_zone
    from wattkeeper.core.schedule import instant
    from wattkeeper.system.clock import SystemClock
    from wattkeeper.system.zones import zone_name

    found, settings = _load(files, config)
    zone = site_zone(settings)
    day = first.date() if first else datetime.fromtimestamp(SystemClock().wall(), zone).date()
    if not 1971 <= day.year <= 2999:
        raise click.UsageError("--from: the years 1971 to 2999")
    days = [day + timedelta(days=n) for n in range(_DAYS)]
    begins, ends = instant(days[0], 0, zone), instant(days[-1] + timedelta(days=1), 0, zone)
    parts = _parts(found, begins, ends, zone)
    if as_json:
        print_json(
            {
                "from": iso(begins, zone),
                "to": iso(ends, zone),
                "zone": zone_name(zone),
                "parts": [_as_json(part, zone) for part in parts],
            }
        )
        return
    lines = [f"{days[0]} to {days[-1]}, {zone_name(zone)}"]
    for part in parts:
        lines += ["", _heading(part), _scale(), *(_line(part, day, zone) for day in days)]
    _print(lines if parts else [*lines, "", "no rule or ceiling has a schedule: each day is as the other"])


def _load(files: tuple[Path, ...], config: Path | None) -> "tuple[Policy, Settings]":
    """The policy, and the settings: their defaults where files are named and nothing is installed."""
    from wattkeeper.config.policy import load_policies, parse_policies, policy_files
    from wattkeeper.config.settings import DEFAULT_PATH, settings_file, settings_or_defaults
    from wattkeeper.config.yaml_lines import read_text
    from wattkeeper.system.trust import TO_READ

    if not files and settings_file(config) is None:
        raise WattkeeperError(f"which policy? There is no {DEFAULT_PATH} here: name a FILE, or settings with --config")
    settings = settings_or_defaults(config, TO_READ)
    if not files:
        return load_policies(settings.policies, TO_READ)[0], settings
    paths = [path for file in files for path in policy_files(file, TO_READ)]
    return parse_policies([(str(path), read_text(path, TO_READ)) for path in paths])[0], settings


def _parts(policy: "Policy", begins: int, ends: int, zone: tzinfo) -> list[_Part]:
    """Ceilings first: they concern everybody."""
    from wattkeeper.core.week import open_windows
    from wattkeeper.model import Conditions

    conditions = Conditions(float(begins), zone=zone)
    ceilings = [
        _Part("ceiling", found, open_windows(found.when, ends, conditions), found.ramp_s)
        for found in policy.ceilings
        if found.when.schedules()
    ]
    rules = [
        _Part("rule", found, open_windows(found.when, ends, conditions))
        for found in policy.rules
        if found.when.schedules()
    ]
    return ceilings + rules


def _heading(part: _Part) -> str:
    """``ceiling summer-peak: at most 70%, ramp 10 min (policy.yaml:12)``."""
    cap = f"at most {part.part.cap.text}" if part.kind == "ceiling" else f"cap {part.part.cap.text}"
    ramp = f", ramp {format_duration(part.ramp_s)}" if part.ramp_s else ""
    others = ", ".join(sorted(part.part.when.fields() - {"schedule"}))
    more = f"; selects by {others} as well" if others else ""
    return f"{part.kind} {part.part.name}: {cap}{ramp}{more} ({part.part.source})"


def _scale() -> str:
    return " " * 16 + "".join(f"{hour:<6}" for hour in range(0, 24, 3)) + "24"


def _line(part: _Part, day: date, zone: tzinfo) -> str:
    """``  Mon 2027-06-28 ······████······  12:00-18:00``."""
    from wattkeeper.core.schedule import instant

    bounds = [instant(day, minute, zone) for minute in range(0, 24 * 60 + 1, _CELL_MINUTES)]
    bar = "".join(_cell(part.windows, start, end) for start, end in pairwise(bounds))
    cut = [(max(start, bounds[0]), min(end, bounds[-1])) for start, end in part.windows]
    today = [(start, end) for start, end in cut if start < end]
    times = ", ".join(f"{_clock(start, zone)}-{_clock(end, zone, bounds[-1])}" for start, end in today)
    beside = f"{len(today)} times" if len(today) > _MANY else times
    return f" {day:%a %Y-%m-%d} {bar}  {beside}".rstrip()


def _cell(windows: "list[Window]", start: int, end: int) -> str:
    held = sum(max(0, min(end, until) - max(start, since)) for since, until in windows)
    if start == end:
        return " "  # clocks leave this half hour out
    return _FULL if held == end - start else _PART if held else _EMPTY


def _clock(at: int, zone: tzinfo, midnight: int | None = None) -> str:
    moment = datetime.fromtimestamp(at, zone)
    return "24:00" if at == midnight else f"{moment:%H:%M:%S}" if moment.second else f"{moment:%H:%M}"


def _as_json(part: _Part, zone: tzinfo) -> dict[str, object]:
    return {
        "kind": part.kind,
        "name": part.part.name,
        "cap": part.part.cap.text,
        "source": str(part.part.source),
        "ramp_s": part.ramp_s,
        "by": sorted(part.part.when.fields()),
        "windows": [{"start": iso(start, zone), "end": iso(end, zone)} for start, end in part.windows],
    }


def _print(lines: list[str]) -> None:
    """In colour on a terminal, plainly elsewhere."""
    if not sys.stdout.isatty():
        click.echo("\n".join(lines))
        return
    from rich.console import Console  # slow to import, and only needed here
    from rich.text import Text

    console = Console(highlight=False)
    for line in lines:
        text = Text(line, style="bold" if line and not line.startswith(" ") else "")
        text.highlight_regex(rf"[{_FULL}{_PART}]+", "green")
        text.highlight_regex(rf"{_EMPTY}+", "dim")
        console.print(text, soft_wrap=True)
