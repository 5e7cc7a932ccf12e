"""``wattkeeper report``: energy by account, user, partition and day, of this node or of the cluster."""

import csv
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from wattkeeper.cli import HELP
from wattkeeper.cli.client import installed_settings
from wattkeeper.cli.output import NAMELESS, NOTHING, Column, print_json, print_table, shown, watts
from wattkeeper.cli.period import Days, DaysType, today
from wattkeeper.ledger import schema
from wattkeeper.ledger.report import FIELDS, Amount, Field, Question, Report, Row, read_report, set_aside, sum_of
from wattkeeper.system.clock import SystemClock
from wattkeeper.system.privilege import become_owner_of
from wattkeeper.text import printable
from wattkeeper.units import Millijoules, joules, kilowatt_hours

_PATIENCE_S = 0.5
"""Work that takes longer says so, on a terminal."""

_MOST_PLACES = 6
"""Of energy in kWh it is 3.6 J, of hours 3.6 ms."""

_COLUMNS = (
    Column("energy, kWh", right=True),
    Column("GPU-hours", right=True),
    Column("mean power", right=True),
    Column("jobs", right=True),
    Column("share", right=True),
)
_CSV_COLUMNS = ("energy_mj", "energy_j", "gpu_hours", "mean_w", "jobs", "share")


class _ByType(click.ParamType[tuple[Field, ...]]):
    """``account`` or several, with commas: ``account,day``."""

    name = "fields"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What the help shows for the value."""
        return f"{'|'.join(FIELDS)}[,…]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Field, ...]:
        """The fields, in their order."""
        words = value if isinstance(value, tuple) else str(value).split(",")
        known: dict[str, Field] = {name: name for name in FIELDS}
        for word in words:
            if word not in known:
                self.fail(f"'{word}' is none of {', '.join(FIELDS)}", param, ctx)
        return tuple(known[word] for word in words)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The fields that can stand after the last comma, each once."""
        done, comma, begun = incomplete.rpartition(",")
        rest = [name for name in FIELDS if name.startswith(begun) and name not in done.split(",")]
        return [CompletionItem(f"{done}{comma}{name}") for name in rest]


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  sudo wattkeeper report                                     the last seven days, by account
  sudo wattkeeper report --since yesterday --by user --top 10
  sudo wattkeeper report --since 2026-11 --until 2026-11 --by account,day --csv > november.csv
  sudo wattkeeper report --account 'ml-*' --by partition --by day
  wattkeeper report --since 30d --prometheus http://prometheus:9090      the whole cluster
  sudo wattkeeper report --json | jq '.rows[] | {account, energy_j}'

\b
Days are whole days of local time, both ends included: --since 7d begins six days before today, --since 2026-11 with
the month's first day, --until 2026-11 ends with its last. The ledger's are those of its node's time zone. Which day is
today, and each day of Prometheus', goes by this machine's zone, or by TZ where it is set.
  energy      the GPUs' own; for people kWh, in CSV and JSON millijoules (exact from a ledger) and joules
  GPU-hours   time for which jobs held GPUs; a GPU that two jobs hold counts for both
  mean power  energy by time, of one GPU
  jobs        runs of jobs that ended on these days; one that still runs has energy already, but is no such job yet
  share       of all that the GPUs used
  idle        used while no job held the GPU
  unattributed
              used while nobody can say who held it, such as through an outage of the agent

\b
The lines add up to what the GPUs' counters gained: the total is theirs, as it was when a job last came or went, or at
most 10 s ago. (none): Slurm set no account, or partition; as such it is selected: --account '(none)'.
Without --prometheus this is one node, from its own ledger, which only root may read: it has every user's jobs.
With it, it is every node that Prometheus scrapes, of one cluster where there are several (--cluster), by account,
partition and day; Prometheus knows no users and no jobs, and nothing of what it did not scrape. To bill by, take the
ledgers or the end-of-job records: they are exact.
Exit codes: 0 fine; 1 no ledger, no answer, or nothing known of these days; 2 wrong use.""",
)
@click.option("--since", type=DaysType(), default="7d", show_default=True, metavar="DAYS",
              help="First day: 2026-11-01, 2026-11, yesterday, 7d, 4w.")  # fmt: skip
@click.option("--until", type=DaysType(), metavar="DAYS", help="Last day, included [today].")
@click.option("--by", type=_ByType(), multiple=True, default=["account"],
              help="What to group by, several in their order [account].")  # fmt: skip
@click.option("--account", multiple=True, metavar="GLOB", help="Only these accounts, such as 'ml-*'; may be repeated.")
@click.option("--user", multiple=True, metavar="GLOB", help="Only these users.")
@click.option("--partition", multiple=True, metavar="GLOB", help="Only these partitions.")
@click.option(
    "--top", type=click.IntRange(1), metavar="N", help="Only the N with the most energy; the rest in one line."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--state-dir", type=click.Path(path_type=Path, file_okay=False, readable=False),
              help="Where the ledger is [the settings', else /var/lib/wattkeeper].")  # fmt: skip
@click.option("--prometheus", metavar="URL", help="Ask this Prometheus about the cluster instead.")
@click.option("--cluster", metavar="NAME", help="Of Prometheus' clusters this one: the label `cluster` of its targets.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=30, show_default=True, metavar="SECONDS",
              help="How long Prometheus may take for each question.")  # fmt: skip
def report(
    since: Days,
    until: Days | None,
    by: tuple[tuple[Field, ...], ...],
    top: int | None,
    as_csv: bool,
    as_json: bool,
    state_dir: Path | None,
    prometheus: str | None,
    cluster: str | None,
    timeout: float,
    **globs: tuple[str, ...],
) -> None:
    """Show the energy that accounts, users or partitions used, or that was used on each day.

    What no job used is shown as well, so that nothing is missing from the sum.
    """
    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    fields = tuple(dict.fromkeys(name for names in by for name in names))
    given: dict[Field, tuple[str, ...]] = {name: tuple(map(_named, globs[name])) for name in FIELDS if globs.get(name)}
    question = _question(since, until, fields, given)
    if prometheus is not None:
        if state_dir is not None:
            raise click.UsageError("give --state-dir or --prometheus, not both")
        answer = _ask_prometheus(question, prometheus, None if cluster is None else _named(cluster), timeout)
    elif cluster is not None:
        raise click.UsageError("--cluster goes with --prometheus: a ledger is one node's")
    else:
        answer = _ask_ledger(question, (state_dir or installed_settings().state_dir) / schema.FILE)
    if as_json:
        print_json(_as_json(answer, top))
    elif as_csv:
        _print_csv(answer, top)
    else:
        _print(answer, top)


def _question(since: Days, until: Days | None, by: tuple[Field, ...], globs: dict[Field, tuple[str, ...]]) -> Question:
    """The days between both words. Raises UsageError where there are none."""
    now = today()
    last = min(until.last, now) if until is not None else now
    if since.first > last:
        raise click.UsageError(f"no day is from {since.first} to {last}: --since is later than --until, or than today")
    if (last - since.first) > timedelta(days=3660):
        raise click.UsageError(f"{since.first} to {last} is more than ten years")
    return Question(since.first.isoformat(), last.isoformat(), by, globs)


def _named(name: str) -> str:
    """What is meant by a name as it is printed: ``(none)`` is the empty one."""
    return "" if name == NAMELESS else name


def _ask_ledger(question: Question, path: Path) -> Report:
    become_owner_of(path)
    if aside := set_aside(path):
        text = "damaged, and set aside by the agent: what it had metered until then is not in this report"
        click.echo(f"wattkeeper: {printable(str(aside[-1]))}: {text}", err=True)
    with _progress() as progress:
        return read_report(path, question, lambda: progress(f"reading {path}"))


def _ask_prometheus(question: Question, url: str, cluster: str | None, timeout_s: float) -> Report:
    from wattkeeper.cli.prom import Prometheus, is_address, read_cluster  # HTTP and TLS are slow to import

    if "user" in question.fields:
        raise click.UsageError("Prometheus knows no users: --by may be account, partition and day")
    if not is_address(url):
        raise click.UsageError(f"'{printable(url)}' is no address, such as http://prometheus:9090")
    with _progress() as progress:
        return read_cluster(Prometheus(url, timeout_s), question, SystemClock().wall(), cluster, progress)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Gives a function that shows, on a terminal, what long work is at; the line is wiped in the end."""
    clock = SystemClock()
    began, told, width = clock.mono(), 0.0, 0
    terminal = sys.stderr.isatty()

    def tell(text: str) -> None:
        nonlocal told, width
        now = clock.mono()
        if terminal and now - began >= _PATIENCE_S and now - told >= _PATIENCE_S / 2:
            line = f"{text} ({now - began:.0f} s)"
            click.echo(f"\r{line.ljust(width)}", nl=False, err=True)
            told, width = now, max(width, len(line))

    try:
        yield tell
    finally:
        if width:
            click.echo(f"\r{' ' * width}\r", nl=False, err=True)


def _cut(report: Report, top: int | None) -> tuple[list[Row], Amount | None]:
    """The rows to show, in the report's order, and the sum of those that are left out; None: none is."""
    if top is None or len(report.rows) <= top:
        return list(report.rows), None
    best = {row.keys for row in sorted(report.rows, key=lambda row: -row.amount.energy_mj)[:top]}
    kept = [row for row in report.rows if row.keys in best]
    return kept, sum_of([row.amount for row in report.rows if row.keys not in best])


def _rest(report: Report, others: Amount | None) -> list[tuple[str, Amount]]:
    """The lines after the rows: with these they are all that the GPUs used."""
    lines = [] if others is None else [("others", others)]
    if report.not_selected is not None:
        lines.append(("not selected", report.not_selected))
    return [*lines, ("idle", report.idle), ("unattributed", report.unattributed)]


def _mean_w(amount: Amount, total: Amount) -> float | None:
    """Mean power of a GPU while it was held; None for the total, which has energy of GPUs that were not."""
    return None if amount is total else amount.mean_w


def _share(amount: Amount, whole: Amount) -> float | None:
    return amount.energy_mj / whole.energy_mj if whole.energy_mj else None


def _print(report: Report, top: int | None) -> None:
    question, total = report.question, report.total
    rows, others = _cut(report, top)
    click.echo(_heading(report))
    click.echo()
    depth = len(question.by)
    columns = [*(Column(name) for name in question.by), *_COLUMNS]
    named = [([_name(key) for key in row.keys], row.amount) for row in rows]
    named += [([name, *[""] * (depth - 1)], amount) for name, amount in [*_rest(report, others), ("total", total)]]
    cells = _cells([amount for _, amount in named], total)
    print_table(columns, [[*names, *figures] for (names, _), figures in zip(named, cells, strict=True)])


def _heading(report: Report) -> str:
    first, last, since = report.question.first_day, report.question.last_day, report.metered_since
    span = first if first == last else f"{first} to {last}"
    metered = f" (metered since {since})" if since is not None and since > first else ""
    cluster = f" of cluster {printable(report.cluster)}" if report.cluster else ""
    return f"GPU energy{cluster} of {span}{metered}, by {', '.join(report.question.by)}, from {shown(report.origin)}"


def _name(key: str) -> str:
    return printable(key, 60) if key else NAMELESS


def _cells(amounts: Sequence[Amount], total: Amount) -> Iterator[list[str]]:
    """The figures of each line. Those of a column have as many digits as its smallest needs."""
    energies = _numbers([kilowatt_hours(amount.energy_mj) for amount in amounts], 3)
    hours = _numbers([None if amount.held_ns is None else amount.held_ns / 3.6e12 for amount in amounts], 2)
    for amount, energy, held in zip(amounts, energies, hours, strict=True):
        mean_w = _mean_w(amount, total)
        yield [
            energy,
            held,
            watts(None if mean_w is None else round(mean_w)),
            NOTHING if amount.jobs is None else str(amount.jobs),
            _percent(_share(amount, total)),
        ]


def _numbers(values: Sequence[float | None], places: int) -> list[str]:
    """So many digits behind the point, or up to ``_MOST_PLACES`` for two of the smallest value's."""
    smallest = min((value for value in values if value), default=1.0)
    places = min(max(places, 1 - math.floor(math.log10(smallest))), _MOST_PLACES)
    least = 10.0**-places
    return [
        NOTHING if value is None else f"<{least:.{places}f}" if 0 < value < least / 2 else f"{value:.{places}f}"
        for value in values
    ]


def _percent(share: float | None) -> str:
    if share is None:
        return NOTHING
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _print_csv(report: Report, top: int | None) -> None:
    """A line for each part of the total, which is left to whoever sums them; ``kind`` says what it is."""
    rows, others = _cut(report, top)
    total = report.total
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["kind", *report.question.by, *_CSV_COLUMNS])
    for row in rows:
        out.writerow(["jobs", *(printable(key) for key in row.keys), *_figures(row.amount, total).values()])
    for name, amount in _rest(report, others):
        empty = [""] * len(report.question.by)
        out.writerow([name.replace(" ", "_"), *empty, *_figures(amount, total).values()])


def _figures(amount: Amount, total: Amount) -> dict[str, float | int | None]:
    """An amount for programs; None, which CSV shows as nothing, where the source does not tell."""
    return dict(
        zip(
            _CSV_COLUMNS,
            (
                amount.energy_mj,
                joules(Millijoules(amount.energy_mj)),
                None if amount.held_ns is None else amount.held_ns / 3.6e12,
                _mean_w(amount, total),
                amount.jobs,
                _share(amount, total),
            ),
            strict=True,
        )
    )


def _as_json(report: Report, top: int | None) -> dict[str, Any]:
    question, total = report.question, report.total
    rows, others = _cut(report, top)
    keyed: Sequence[dict[str, Any]] = [
        {**{name: printable(key) if key else None for name, key in zip(question.by, row.keys, strict=True)},
         **_figures(row.amount, total)}
        for row in rows
    ]  # fmt: skip
    return {
        "since": question.first_day,
        "until": question.last_day,
        "metered_since": report.metered_since,
        "from": report.origin,
        "cluster": printable(report.cluster) or None,
        "by": list(question.by),
        "rows": keyed,
        **{name.replace(" ", "_"): _figures(amount, total) for name, amount in _rest(report, others)},
        "total": _figures(total, total),
    }
