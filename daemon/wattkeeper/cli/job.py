"""``wattkeeper job``: what one job asked for, got and used on this node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from wattkeeper.api.line import earlier_use, energy_j, held_back, mean_w, percent
from wattkeeper.cli import HELP
from wattkeeper.cli.client import SettingsError, client, installed_settings, run_dir_option
from wattkeeper.cli.jobid import JobIdType, raw_job_id
from wattkeeper.cli.output import (
    NOTHING,
    Column,
    aligned,
    alike,
    energy,
    got,
    gpu_names,
    print_json,
    shown,
    step_line,
    watts,
)
from wattkeeper.errors import AgentUnreachableError
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import format_duration

_USE_COLUMNS = (
    Column("GPU", right=True),
    Column("energy", right=True),
    Column("time", right=True),
    Column("mean", right=True),
    Column("peak", right=True),
    Column("held back", right=True),
    Column("divided by"),
    Column("from"),
)
_BASES = {"sole": "only holder", "use": "use", "slices": "MIG slices", "even": "equal parts"}
_SOURCES = {"counter": "the card's counter", "power": "integrated power"}
_INDENT = " " * 10


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  wattkeeper job 1234
  wattkeeper job 1234_5                    a task of a job array; Slurm is asked which job that is
  wattkeeper job 1234+1                    the second part of a heterogeneous job
  wattkeeper job $SLURM_JOB_ID --line      the last line of a job script: what it used
  wattkeeper job $SLURM_JOB_ID --json      inside of a job, for a program

\b
What the table says of each GPU:
  energy      what was charged to the job
  time        for how long the job has been charged
  mean        energy by time: on a shared GPU the job's part of the power
  peak        the highest power at a reading, one each interval: of the GPU as a whole
  held back   the share of the time in which the limit kept the GPU slower than it could have been
  divided by  how a GPU that several jobs held was divided: by use, by MIG slices, or in equal parts
  from        the card's own energy counter; or its power, integrated, where it has no counter

\b
A dash: no card told. A job on several nodes is shown by each of them for itself, a requeued one by its last run here;
before is what its earlier runs used. The plain number of an array or het job is one of its tasks, or its first part.
Users see their own jobs, root sees all. Jobs that ended stay for as long as the ledger keeps them (ledger.keep).
Exit code 1: this node's agent knows no such job, or none answers.""",
)
@click.argument("job_id", metavar="JOBID", type=JobIdType())
@click.option("--line", "as_line", is_flag=True, help="Print one line: energy, mean power, time held back.")
@click.option("--json", "as_json", is_flag=True, help="Print what the agent answers; watts, joules and Unix seconds.")
@run_dir_option
def job(job_id: str, as_line: bool, as_json: bool, run_dir: Path | None) -> None:
    """Show what a job asked for, what it got, why, and the energy it used on this node."""
    if as_line and as_json:
        raise click.UsageError("give --line or --json, not both")
    number = raw_job_id(job_id)
    agent = client(run_dir)
    try:
        answer: Any = agent.get_text(f"/v1/jobs/{number}/line") if as_line else agent.get(f"/v1/jobs/{number}")
    except AgentUnreachableError as error:
        if run_dir is not None:
            raise
        from wattkeeper.agent.ledger import RECORDS  # with all of the ledger: slow to import

        try:
            records = installed_settings().state_dir / RECORDS
        except SettingsError:  # said already
            raise error from None
        raise AgentUnreachableError(f"{error}; jobs that ended are in {records} as well, for root") from None
    if as_line:
        click.echo(shown(answer.strip()))
    elif as_json:
        print_json(answer)
    else:
        for line in lines_of(answer, SystemClock().wall(), job_id):
            click.echo(line)


def lines_of(answer: Mapping[str, Any], now_at: float, name: str = "") -> list[str]:
    """The answer as people read it. ``name``: what the job was called when it was asked for."""
    parts = [f"{what} {shown(answer[what])}" for what in ("account", "partition") if answer[what]]
    began, ended = float(answer["started_at"]), answer["ended_at"]
    state = f"running for {format_duration(max(0.0, now_at - began))}"
    if ended is not None:
        state = f"ran for {format_duration(max(0.0, ended - began))}"
    also = f" ({name})" if name not in {"", str(answer["job_id"])} else ""
    run = f", run {shown(answer['run'])}," if answer.get("earlier_runs") else ""
    lines = [
        (
            f"job {shown(answer['job_id'])}{also}{run} of {shown(answer['user'])} on {shown(answer['node'])}"
            f"{' (' + ', '.join(parts) + ')' if parts else ''}, {state}"
        ),
        f"asked   {shown(answer['asked'])}: {shown(answer['outcome'])}" if answer["asked"] else "asked   nothing",
    ]
    groups = alike(answer["gpus"])
    if not groups:
        return [*lines, "got     no GPU on this node"]
    lines += [f"got     {gpu_names(group.minors)}: {got(group)}" for group in groups]
    lines += _used(energy_j(answer), sorted(answer["gpus"], key=lambda gpu: int(gpu["gpu"])))
    if earlier_use(answer):
        lines.append(f"before  {earlier_use(answer)} on this node ({', '.join(map(shown, answer['earlier_runs']))})")
    for group in groups:
        if group.gpu["steps"]:
            lines.append(f"why     {gpu_names(group.minors)}:")
            lines += [f"{_INDENT}{step_line(step)}" for step in group.gpu["steps"]]
    return lines


def _used(joules: float | None, gpus: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sum over the GPUs on a line, then a table with a row for each."""
    peaks = [float(gpu["peak_w"]) for gpu in gpus if gpu.get("peak_w") is not None]
    share = held_back(gpus)
    facts = [
        f"mean {watts(mean_w(gpus))}{' a GPU' if len(gpus) > 1 else ''}" if mean_w(gpus) is not None else "",
        f"peak {watts(max(peaks))}" if peaks else "",
        f"held back by the cap {percent(share)} of the time" if share is not None else "",
    ]
    details = ", ".join(fact for fact in facts if fact)
    head = f"energy  {energy(joules)}{': ' + details if details else ''}"
    return [head, *(f"{_INDENT}{row}" for row in aligned(_USE_COLUMNS, [_row(gpu) for gpu in gpus]))]


def _row(gpu: Mapping[str, Any]) -> list[str]:
    seconds, share = gpu.get("seconds"), held_back([gpu])
    return [
        shown(gpu["gpu"]),
        energy(gpu["energy_j"]),
        NOTHING if seconds is None else format_duration(float(seconds)),
        watts(mean_w([gpu])),
        watts(gpu.get("peak_w")),
        NOTHING if share is None else percent(share),
        _words(gpu.get("basis"), _BASES),
        _words(gpu.get("source"), _SOURCES),
    ]


def _words(value: object, known: Mapping[str, str]) -> str:
    """One word of the agent's, or several, as people read them."""
    words = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else []
    return " and ".join(known.get(str(word), shown(word)) for word in words) or NOTHING
