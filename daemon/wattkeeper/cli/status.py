"""``wattkeeper status``: this node as its agent sees it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.client import client, run_dir_option
from wattkeeper.cli.output import NOTHING, Column, energy, print_json, print_table, shown, watts
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import format_duration

_GPU_COLUMNS = (
    Column("GPU", right=True),
    Column("model"),
    Column("power", right=True),
    Column("limit", right=True),
    Column("target", right=True),
    Column("baseline", right=True),
    Column("temp", right=True),
    Column("use", right=True),
    Column("jobs"),
    Column("why"),
)
_JOB_COLUMNS = (
    Column("job", right=True),
    Column("user"),
    Column("account"),
    Column("partition"),
    Column("GPUs"),
    Column("asked"),
    Column("outcome"),
    Column("cap", right=True),
    Column("energy", right=True),
    Column("state"),
)


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  wattkeeper status
  watch -n 2 wattkeeper status
  wattkeeper status --json | jq '.gpus[] | select(.error)'

\b
limit is what is set on the card, target what the agent wants, baseline what it goes back to when no job holds it.
Users see their own jobs, root sees all. Exit code 1: no agent answers.""",
)
@click.option("--json", "as_json", is_flag=True, help="Print what the agent answers; watts, joules and Unix seconds.")
@run_dir_option
def status(as_json: bool, run_dir: Path | None) -> None:
    """Show this node: each GPU's limit and why it has it, the jobs, and whatever is wrong."""
    answer = client(run_dir).get("/v1/status")
    if as_json:
        print_json(answer)
        return
    now_at = SystemClock().wall()
    for line in _head(answer, now_at):
        click.echo(line)
    if answer["gpus"]:
        click.echo()
        print_table(_GPU_COLUMNS, [_gpu_row(gpu, now_at) for gpu in answer["gpus"]])
    if answer["jobs"]:
        click.echo()
        print_table(_JOB_COLUMNS, [_job_row(job, now_at) for job in answer["jobs"]])


def _head(answer: Mapping[str, Any], now_at: float) -> list[str]:
    cluster = f" of {shown(answer['cluster'])}" if answer.get("cluster") else ""
    policy = answer["policy"]
    lines = [
        (
            f"{shown(answer['node'])}{cluster}: mode {shown(answer['mode'])}, policy {shown(policy['digest'])}, "
            f"wattkeeper {shown(answer['version'])}"
        )
    ]
    if not answer["gpus"]:
        lines.append("no GPU to manage on this node")
    age = now_at - float(answer["at"])
    if age > 3 * float(answer["interval_s"]) + 2:
        lines.append(f"ALARM: this is {format_duration(age)} old: the agent may hang")
    if not policy["reload_ok"]:
        lines.append(f"ALARM: the last reload failed, the policy before it is in force: {shown(policy['error'])}")
    return lines + [f"ALARM: {shown(alarm)}" for alarm in answer["alarms"]]


def _gpu_row(gpu: Mapping[str, Any], now_at: float) -> list[str]:
    limit, enforced = gpu["limit_w"], gpu["enforced_w"]
    lowered = limit is not None and enforced is not None and enforced < limit - 1
    use, celsius = gpu["utilization"], gpu["temperature_c"]
    return [
        shown(gpu["gpu"]),
        shown(gpu["model"]),
        watts(gpu["power_w"]),
        f"{watts(limit)} (holds: {watts(enforced)})" if lowered else watts(limit),
        watts(gpu["target_w"]),
        watts(gpu["baseline_w"]),
        NOTHING if celsius is None else f"{celsius} °C",
        NOTHING if use is None else f"{use:.0%}",
        ",".join(map(shown, gpu["holders"])) or NOTHING,
        _why(gpu, now_at),
    ]


def _why(gpu: Mapping[str, Any], now_at: float) -> str:
    """What is wrong or unusual with a GPU first, then why its limit is what it is."""
    parts = []
    if gpu["error"]:
        parts.append(f"ERROR: {shown(gpu['error'])}")
    if gpu["hold"]:
        until = gpu["hold"]["until_at"]
        rest = (
            "until `wattkeeper resume`" if until is None else f"for another {format_duration(max(0, until - now_at))}"
        )
        parts.append(f"held {rest}: {shown(gpu['hold']['reason'])}")
    if gpu["yielded"]:
        parts.append("left to another program that sets its limit")
    if gpu.get("sharing_conflicts"):
        parts.append(
            f"CONFLICT: {gpu['sharing_conflicts']} of {len(gpu['holders'])} holders would have another limit alone"
        )
    if not parts or not gpu["hold"]:
        parts.append(shown(gpu["why"]))
        if gpu.get("until"):
            parts.append(f"until {shown(gpu['until'])} at least")
    return "; ".join(part for part in parts if part != NOTHING) or NOTHING


def _job_row(job: Mapping[str, Any], now_at: float) -> list[str]:
    caps = dict.fromkeys(_cap(gpu) for gpu in sorted(job["gpus"], key=lambda gpu: gpu["cap_w"] or 0))
    ended = job["ended_at"]
    run = str(job["run"])
    return [
        f"{shown(job['job_id'])}{'' if run in {'', 'r0'} else '/' + shown(run)}",
        shown(job["user"]),
        shown(job["account"]),
        shown(job["partition"]),
        ",".join(shown(gpu["gpu"]) for gpu in job["gpus"]) or NOTHING,
        shown(job["asked"]),
        shown(job["outcome"]),
        f"{'/'.join(caps) or NOTHING}{_alone(job)}",
        energy(job_energy(job)),
        f"for {format_duration(max(0.0, now_at - job['started_at']))}"
        if ended is None
        else f"ended {format_duration(max(0.0, now_at - ended))} ago",
    ]


def _cap(gpu: Mapping[str, Any]) -> str:
    """``250 W``, or what it would be and why it is not."""
    if gpu.get("observe"):
        return f"{watts(gpu.get('decided_w'))} (observed only)"
    if gpu.get("not_set"):
        return f"{watts(gpu.get('decided_w'))} (not set)"
    return watts(gpu["cap_w"])


def _alone(job: Mapping[str, Any]) -> str:
    """`` (alone: 250 W)`` of a job that shares a GPU with others and would have another cap without them."""
    alone = sorted({gpu["alone_w"] for gpu in job["gpus"] if gpu.get("alone_w") is not None})
    return f" (alone: {'/'.join(map(watts, alone))})" if alone and job["ended_at"] is None else ""


def job_energy(job: Mapping[str, Any]) -> float | None:
    """Joules of all the job's GPUs on this node; None where none is known."""
    known = [float(gpu["energy_j"]) for gpu in job["gpus"] if gpu["energy_j"] is not None]
    return sum(known) if known else None
