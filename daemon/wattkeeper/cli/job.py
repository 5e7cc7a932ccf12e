"""``wattkeeper job``: what one job asked for, got and used on this node."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.client import client, run_dir_option
from wattkeeper.cli.output import alike, energy, got, gpu_names, print_json, shown, step_line
from wattkeeper.cli.status import job_energy
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import format_duration


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  wattkeeper job 1234
  wattkeeper job $SLURM_JOB_ID --json      inside of a job, for a program

\b
Users see their own jobs, root sees all; jobs that ended stay visible for a few minutes (metrics.grace).
Exit code 1: this node's agent knows no such job, or none answers.""",
)
@click.argument("job_id", metavar="JOBID", type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="Print what the agent answers; watts, joules and Unix seconds.")
@run_dir_option
def job(job_id: int, as_json: bool, run_dir: Path | None) -> None:
    """Show what a job asked for, what it got, why, and the energy it used on this node."""
    answer = client(run_dir).get(f"/v1/jobs/{job_id}")
    if as_json:
        print_json(answer)
        return
    now_at = SystemClock().wall()
    for line in lines_of(answer, now_at):
        click.echo(line)


def lines_of(answer: Mapping[str, Any], now_at: float) -> list[str]:
    """The answer as people read it."""
    parts = [f"{what} {shown(answer[what])}" for what in ("account", "partition") if answer[what]]
    began, ended = float(answer["started_at"]), answer["ended_at"]
    state = f"running for {format_duration(max(0.0, now_at - began))}"
    if ended is not None:
        state = f"ran for {format_duration(max(0.0, ended - began))}"
    lines = [
        (
            f"job {answer['job_id']} of {shown(answer['user'])} on {shown(answer['node'])}"
            f"{' (' + ', '.join(parts) + ')' if parts else ''}, {state}"
        ),
        f"asked   {shown(answer['asked'])}: {shown(answer['outcome'])}" if answer["asked"] else "asked   nothing",
    ]
    groups = alike(answer["gpus"])
    if not groups:
        return [*lines, "got     no GPU on this node"]
    lines += [f"got     {gpu_names(group.minors)}: {got(group)}" for group in groups]
    lines.append(f"energy  {energy(job_energy(answer))}{_by_gpu(answer['gpus'])}")
    for group in groups:
        lines.append(f"why     {gpu_names(group.minors)}:")
        lines += [f"          {step_line(step)}" for step in group.gpu["steps"]]
    return lines


def _by_gpu(gpus: list[Mapping[str, Any]]) -> str:
    if len(gpus) < 2:
        return ""
    parts = [f"GPU {gpu['gpu']}: {energy(gpu['energy_j'])}" for gpu in sorted(gpus, key=lambda gpu: int(gpu["gpu"]))]
    return f" ({', '.join(parts)})"
