"""``wattkeeper explain``: a decision step by step, of a job that is here or of one that might come."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.client import client, run_dir_option
from wattkeeper.cli.jobid import JobIdType, raw_job_id
from wattkeeper.cli.moment import MomentType, iso, written
from wattkeeper.cli.output import alike, got, gpu_names, print_json, shown, step_line
from wattkeeper.cli.output import watts as watts_shown
from wattkeeper.units import format_power, parse_power, watts

if TYPE_CHECKING:
    from wattkeeper.model import Conditions, GpuContext, JobFacts, Target


class _Power(click.ParamType[int]):
    name = "power"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """``700W`` as milliwatts."""
        power = parse_power(str(value))
        if power is None:
            self.fail(f"'{value}' is not a power, such as 250W or 0.25kW", param, ctx)
        return power


_POWER = _Power()


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  wattkeeper explain 1234
  wattkeeper explain 1234_5                a task of a job array, as for wattkeeper job
  wattkeeper explain --partition gpu --account ml --comment "power=300W" --gpu-model H100
  wattkeeper explain --policy new-policy.yaml --partition debug --gpu-model A100
  wattkeeper explain --partition gpu --gpu-model H100 --at 2027-07-01T13:00
  wattkeeper explain --gpu-model "My GPU" --default 500W --min 100W --max 500W

\b
The second form needs no agent and no GPU. A field that is not named is one that Slurm does not set for the job; of
those that may still become known the answer says so where it hinges on them.
--at is a time of the site (the setting time_zone, else this machine's zone), unless it has an offset: …T13:00+02:00.
The order is always: rule, request, sharing, ceilings, the device's range. Exit code 1: no such job.""",
)
@click.argument("job_id", metavar="[JOBID]", type=JobIdType(), required=False)
@click.option("--user", help="The job's owner.")
@click.option("--account", help="Its account.")
@click.option("--partition", help="Its partition.")
@click.option("--qos", help="Its QOS [not known].")
@click.option("--job-name", help="Its name [not known].")
@click.option("--group", "groups", multiple=True, help="A Unix group of its owner; may be given again [not known].")
@click.option("--reservation", help="Its reservation.")
@click.option("--constraint", help="Its constraint, as sbatch takes it.")
@click.option("--comment", help='Its comment, such as "power=250W".')
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="How many GPUs on this node.")
@click.option("--num-nodes", type=click.IntRange(1), default=1, show_default=True, help="How many nodes.")
@click.option("--node", default="", help="The node's name.")
@click.option("--gpu-model", help="NVML's name, a glob for it, or H100, H100-PCIe, A100, V100, V100-PCIe.")
@click.option("--default", "default_mw", type=_POWER, metavar="POWER", help="The GPU's default limit.")
@click.option("--min", "min_mw", type=_POWER, metavar="POWER", help="Its lowest limit.")
@click.option("--max", "max_mw", type=_POWER, metavar="POWER", help="Its highest limit.")
@click.option("--baseline", "baseline_mw", type=_POWER, metavar="POWER", help="Its limit before us [its default].")
@click.option("--at", type=MomentType(), metavar="TIME", help="When it runs, for schedules [now].")
@click.option("--policy", type=click.Path(path_type=Path), help="A policy file, or a folder of them.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings, for their policy [the installed ones].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; watts.")
@run_dir_option
def explain(
    job_id: str | None,
    gpus: int,
    num_nodes: int,
    node: str,
    groups: tuple[str, ...],
    gpu_model: str | None,
    default_mw: int | None,
    min_mw: int | None,
    max_mw: int | None,
    baseline_mw: int | None,
    at: datetime | None,
    policy: Path | None,
    config: Path | None,
    as_json: bool,
    run_dir: Path | None,
    **fields: str | None,
) -> None:
    """Show why a job gets the cap it gets: each step with the rule's file and line, and what is applied.

    With JOBID: a job on this node, as its agent decided. Without: the job that the options describe, on a GPU of that
    model, by the policy in the file or in force on this node.
    """
    limits = {"default": default_mw, "min": min_mw, "max": max_mw, "baseline": baseline_mw}
    described = gpu_model or policy or config or at or groups or any(fields.values()) or any(limits.values())
    if job_id is not None:
        if described:
            raise click.UsageError("give JOBID, or describe a job, not both")
        _explain_job(raw_job_id(job_id), as_json, run_dir)
        return
    if not gpu_model:
        raise click.UsageError("give JOBID, or describe a job: --gpu-model is needed, such as --gpu-model H100")
    _explain_described(_job(fields, groups, gpus, num_nodes, node), gpu_model, limits, (policy, config), at, as_json)


def _explain_job(job_id: int, as_json: bool, run_dir: Path | None) -> None:
    answer = client(run_dir).get(f"/v1/jobs/{job_id}")
    if as_json:
        print_json(answer)
        return
    place = f" on {shown(answer['node'])}" if answer["node"] else ""
    click.echo(f"job {shown(answer['job_id'])} of {shown(answer['user'])}{place}")
    groups = alike(answer["gpus"])
    if not groups:
        click.echo("no GPU on this node: nothing to decide")
    for group in groups:
        click.echo(f"{gpu_names(group.minors)}: {shown(group.gpu['model'])}")
        for step in group.gpu["steps"]:
            click.echo(f"  {step_line(step)}")
        if not group.gpu["steps"] and answer["ended_at"] is not None:
            click.echo("  the steps of its decision are not kept: the agent has forgotten the job since it ended")
        for name in group.gpu.get("pending") or ():
            click.echo(f"  {shown(name)}: not known yet, and may change this")
        if group.gpu.get("alone_w") is not None:
            click.echo(f"  conflict: alone on this GPU the job would have {watts_shown(group.gpu['alone_w'])}")
        if group.gpu.get("until"):
            click.echo(f"  stands until {shown(group.gpu['until'])} at least, as far as time goes")
        click.echo(f"  applied: {got(group)}")


def _job(fields: Mapping[str, str | None], groups: tuple[str, ...], gpus: int, num_nodes: int, node: str) -> "JobFacts":
    from wattkeeper.model import UNKNOWN, JobFacts, JobKey

    return JobFacts(
        key=JobKey("", 0, ""),
        uid=0,
        user=fields["user"],
        account=fields["account"],
        partition=fields["partition"],
        qos=fields["qos"] or UNKNOWN,
        job_name=fields["job_name"] or UNKNOWN,
        reservation=fields["reservation"],
        constraint=fields["constraint"],
        comment=fields["comment"],
        num_nodes=num_nodes,
        gpus=gpus,
        node=node,
        groups=frozenset(groups) or UNKNOWN,
    )


def _explain_described(
    job: "JobFacts",
    gpu_model: str,
    limits: Mapping[str, int | None],
    files: tuple[Path | None, Path | None],
    at: datetime | None,
    as_json: bool,
) -> None:
    from wattkeeper.cli.described import gpu_context
    from wattkeeper.cli.inforce import conditions_at, policy_and_settings
    from wattkeeper.core.arbitrate import arbitrate
    from wattkeeper.core.resolve import resolve

    policy, settings = policy_and_settings(*files)
    gpu = gpu_context(gpu_model, limits, settings.gpus)
    conditions = conditions_at(at, job.node, settings)
    target = arbitrate([resolve(job, gpu, policy, conditions)], gpu, policy)
    _print(target, gpu, conditions, as_json, dated=at is not None)


def _print(target: "Target", gpu: "GpuContext", conditions: "Conditions", as_json: bool, *, dated: bool) -> None:
    """``dated``: for a time that was asked for, which is then printed."""
    (decision,) = target.decisions
    info, until = gpu.info, decision.next_change
    if as_json:
        print_json(
            {
                "model": info.model,
                "at": iso(conditions.now_at, conditions.zone),
                "default_w": watts(info.default_mw),
                "min_w": watts(info.min_mw),
                "max_w": watts(info.max_mw),
                "baseline_w": None if gpu.baseline_mw is None else watts(gpu.baseline_mw),
                "asked": decision.asked,
                "outcome": decision.outcome.value,
                "rule": decision.rule,
                "allowed_w": None if decision.allowed_mw is None else [watts(mw) for mw in decision.allowed_mw],
                "observe": target.observe,
                "pending": sorted(decision.pending),
                "next_change": None if until is None else iso(until, conditions.zone),
                "steps": [
                    {
                        "kind": step.kind.value,
                        "text": step.text,
                        "source": str(step.source) if step.source else None,
                        "cap_w": None if step.cap_mw is None else watts(step.cap_mw),
                    }
                    for step in decision.steps
                ],
                "cap_w": None if target.limit_mw is None else watts(target.limit_mw),
            }
        )
        return
    baseline = "" if gpu.baseline_mw is None else f", baseline {format_power(gpu.baseline_mw)}"
    span = f"{format_power(info.min_mw)} to {format_power(info.max_mw)}"
    click.echo(f"{shown(info.model)}: default {format_power(info.default_mw)}, takes {span}{baseline}")
    if dated:
        click.echo(f"  at {written(conditions.now_at, conditions.zone)}")
    for step in decision.steps:
        click.echo(f"  {step}")
    for name in sorted(decision.pending):
        click.echo(f"  {name}: not known, and may change this")
    if until is not None:
        click.echo(f"  stands until {written(until, conditions.zone)} at least, as far as time goes")
    applied = "limit left alone" if target.limit_mw is None else format_power(target.limit_mw)
    click.echo(f"  applied: {applied}{' (observed only: nothing is written)' if target.observe else ''}")
