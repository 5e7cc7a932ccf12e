"""``wattkeeper profiles``: what users may ask for, before they submit."""

import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.client import client, run_dir_option
from wattkeeper.cli.moment import MomentType, iso, written
from wattkeeper.cli.output import NOTHING, Column, print_json, print_table, shown
from wattkeeper.errors import AgentUnreachableError, WattkeeperError
from wattkeeper.units import Milliwatts, format_power, watts

if TYPE_CHECKING:
    from wattkeeper.config.settings import Settings
    from wattkeeper.core.offers import Offer
    from wattkeeper.core.policy import Policy
    from wattkeeper.model import Conditions, GpuContext, JobFacts

_OFFER_COLUMNS = (
    Column("partition"),
    Column("GPU"),
    Column("asking nothing", right=True),
    Column("you may ask for"),
    Column("profiles"),
    Column("by rule"),
)


@dataclass(frozen=True, slots=True)
class _Row:
    partition: str
    gpu: "GpuContext"
    offer: "Offer"


@dataclass(frozen=True, slots=True)
class _Gpus:
    """One of each kind of GPU; ``node`` and the digest of its policy where an agent told."""

    contexts: "list[GpuContext]"
    node: str = ""
    digest: str = ""


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  wattkeeper profiles                                  this node's GPUs, for you
  wattkeeper profiles --partition gpu --account ml     one partition, with your account
  wattkeeper profiles --gpu-model H100                 on a login node, for GPUs of that model
  wattkeeper profiles --policy new-policy.yaml --gpu-model A100 --user alice --group ml --json

\b
Then: sbatch --comment="power=eco" job.sh, or any limit within the bounds: --comment="power=250W".
A rule that hinges on something not named here (account, QOS, job name) is listed with it: `if qos fits`.
On a GPU that other users' jobs hold too, nobody's request counts. Exit code 1: no policy, or no GPU, to go by.""",
)
@click.option("--partition", "wanted", multiple=True, help="Only this partition; may be repeated [all in the policy].")
@click.option("--gpu-model", help="GPUs of this model instead of this node's: NVML's name, a glob, H100, A100, V100.")
@click.option("--user", help="For this user [you].")
@click.option("--group", "groups", multiple=True, help="The user's Unix groups; may be repeated [as this node knows].")
@click.option("--account", help="The job's account [not known].")
@click.option("--qos", help="The job's QOS [not known].")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="How many GPUs on a node.")
@click.option("--num-nodes", type=click.IntRange(1), default=1, show_default=True, help="How many nodes.")
@click.option("--at", type=MomentType(), metavar="TIME", help="When the job runs, for schedules [now].")
@click.option("--policy", type=click.Path(path_type=Path), help="A policy file, or a folder of them.")
@click.option("--config", type=click.Path(path_type=Path), help="Settings, for their policy [the installed ones].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; watts.")
@run_dir_option
def profiles(
    wanted: tuple[str, ...],
    gpu_model: str | None,
    at: datetime | None,
    policy: Path | None,
    config: Path | None,
    as_json: bool,
    run_dir: Path | None,
    **job: Any,
) -> None:
    """Show what each profile gives in watts, and what you may ask for in which partition.

    For the GPUs of this node, as its agent tells, or of --gpu-model, which needs no agent. The policy is the one in
    the file, or the one installed on this node.
    """
    from wattkeeper.cli.inforce import conditions_at, policy_and_settings
    from wattkeeper.core.offers import partitions

    found, settings = policy_and_settings(policy, config)
    gpus = _gpus(gpu_model, settings, run_dir or (settings.run_dir if config else None))
    conditions = conditions_at(at, gpus.node, settings)
    facts = _job(gpus.node, **job)
    rows = _rows(facts, wanted or partitions(found), gpus.contexts, found, conditions)
    if as_json:
        head = {"node": gpus.node or None, "user": facts.user, "account": job["account"]}
        models = [_model_json(gpu, found) for gpu in gpus.contexts]
        when = iso(conditions.now_at, conditions.zone)
        print_json({**head, "at": when, "models": models, "offers": [_row_json(row) for row in rows]})
        return
    if gpus.digest and not policy and gpus.digest != found.digest:
        click.echo("wattkeeper: the policy files differ from the policy that the agent goes by", err=True)
    if at:
        click.echo(f"at {written(conditions.now_at, conditions.zone)}")
    _print_profiles(gpus.contexts, found)
    _print_offers(facts, rows)


def _gpus(gpu_model: str | None, settings: "Settings", run_dir: Path | None) -> _Gpus:
    """The GPUs that the options name, or this node's."""
    from wattkeeper.cli.described import gpu_context

    if gpu_model:
        return _Gpus([gpu_context(gpu_model, dict.fromkeys(("default", "min", "max", "baseline")), settings.gpus)])
    status = _status(run_dir)
    return _Gpus(_contexts(status["gpus"], settings), str(status["node"]), str(status["policy"]["digest"]))


def _job(
    node: str,
    user: str | None,
    groups: tuple[str, ...],
    account: str | None,
    qos: str | None,
    gpus: int,
    num_nodes: int,
) -> "JobFacts":
    """A job of the user's, of which the rest is not known."""
    from wattkeeper.model import UNKNOWN, JobFacts, JobKey

    name, uid = _who(user)
    return JobFacts(
        key=JobKey("", 0, ""),
        uid=uid,
        user=name,
        account=account or UNKNOWN,
        qos=qos or UNKNOWN,
        num_nodes=num_nodes,
        gpus=gpus,
        node=node,
        groups=frozenset(groups) or _groups_of(name),
    )


def _rows(
    job: "JobFacts",
    partitions: Sequence[str],
    contexts: "Sequence[GpuContext]",
    policy: "Policy",
    conditions: "Conditions",
) -> list[_Row]:
    from wattkeeper.core.offers import offers

    return [
        _Row(partition, gpu, offer)
        for partition in partitions
        for gpu in contexts
        for offer in offers(replace(job, partition=partition), gpu, policy, conditions)
    ]


def _status(run_dir: Path | None) -> Any:
    try:
        status = client(run_dir).get("/v1/status")
    except AgentUnreachableError as error:
        raise WattkeeperError(f"which GPUs? Name their model with --gpu-model; or here: {error}") from None
    if not status["gpus"]:
        raise WattkeeperError("this node has no GPU to manage: name a model with --gpu-model")
    return status


def _contexts(gpus: Sequence[Mapping[str, Any]], settings: "Settings") -> "list[GpuContext]":
    """One of each kind of GPU that there is: the same model, limits and baseline."""
    from wattkeeper.model import GpuContext, GpuInfo, GpuUuid

    found: dict[tuple[object, ...], GpuContext] = {}
    for gpu in gpus:
        limits = {key: _mw(gpu[f"{key}_w"]) for key in ("default", "min", "max")}
        info = GpuInfo(
            GpuUuid("GPU-described"), 0, 0, str(gpu["model"]), limits["default"], limits["min"], limits["max"]
        )
        baseline = None if gpu["baseline_w"] is None else _mw(gpu["baseline_w"])
        found.setdefault((info, baseline), GpuContext(info, baseline, settings.gpus.exceed_baseline))
    return list(found.values())


def _mw(value: float) -> Milliwatts:
    return Milliwatts(round(value * 1000))


def _who(user: str | None) -> tuple[str, int]:
    """Name and uid of a user, by default of whoever calls. A name that this node does not know has uid 0 here, which
    no decision looks at."""
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.getuid())
    except KeyError:
        return user or str(os.getuid()), 0
    return entry.pw_name, entry.pw_uid


def _groups_of(name: str) -> Any:
    from wattkeeper.model import UNKNOWN
    from wattkeeper.system.groups import groups_of

    try:
        return groups_of(pwd.getpwnam(name).pw_uid)
    except (KeyError, OSError):
        return UNKNOWN


def _print_profiles(contexts: "Sequence[GpuContext]", policy: "Policy") -> None:
    from wattkeeper.core.offers import profiles_mw

    for gpu in contexts:
        info = gpu.info
        baseline = "" if gpu.baseline_mw is None else f", baseline {format_power(gpu.baseline_mw)}"
        span = f"takes {format_power(info.min_mw)} to {format_power(info.max_mw)}"
        click.echo(f"{shown(info.model)}: default {format_power(info.default_mw)}, {span}{baseline}")
    if not policy.profiles:
        click.echo("the policy has no profiles")
        return
    click.echo()
    columns = (Column("profile"), *(Column(shown(gpu.info.model), right=True) for gpu in contexts))
    values = [profiles_mw(policy, gpu) for gpu in contexts]
    print_table(columns, [[name, *(_power(found[name]) for found in values)] for name in values[0]])


def _print_offers(job: "JobFacts", rows: Sequence[_Row]) -> None:
    click.echo(f'\n{shown(job.user)} may ask, with --comment="power=…", for each GPU:')
    print_table(_OFFER_COLUMNS, [_cells(row) for row in rows])
    for ceiling in dict.fromkeys(row.offer.ceiling for row in rows if row.offer.ceiling):
        under = dict.fromkeys(shown(row.partition) for row in rows if row.offer.ceiling == ceiling)
        click.echo(f"ceiling over all of that, in {', '.join(under)}: {ceiling}")


def _cells(row: _Row) -> list[str]:
    offer = row.offer
    observed = " (observed only)" if offer.observe else ""
    rule = shown(offer.rule) if offer.rule else "no rule matches"
    unsure = f", if {' and '.join(sorted(offer.hinges_on))} fits" if offer.hinges_on else ""
    return [
        shown(row.partition),
        shown(row.gpu.info.model),
        f"{_power(offer.cap_mw)}{observed}",
        _bounds(offer),
        ", ".join(offer.profiles) or NOTHING,
        f"{rule}{unsure}",
    ]


def _bounds(offer: "Offer") -> str:
    if offer.allowed_mw is None:
        return "nothing"
    low, high = map(format_power, offer.allowed_mw)
    return f"{low} to {high}{', else denied' if offer.denies else ''}"


def _power(value: Milliwatts | None) -> str:
    return "not known yet" if value is None else format_power(value)


def _model_json(gpu: "GpuContext", policy: "Policy") -> dict[str, object]:
    from wattkeeper.core.offers import profiles_mw

    info = gpu.info
    return {
        "model": info.model,
        "default_w": watts(info.default_mw),
        "min_w": watts(info.min_mw),
        "max_w": watts(info.max_mw),
        "baseline_w": _watts(gpu.baseline_mw),
        "profiles": {name: _watts(value) for name, value in profiles_mw(policy, gpu).items()},
    }


def _row_json(row: _Row) -> dict[str, object]:
    offer = row.offer
    return {
        "partition": row.partition,
        "model": row.gpu.info.model,
        "rule": offer.rule,
        "hinges_on": sorted(offer.hinges_on),
        "cap_w": _watts(offer.cap_mw),
        "allowed_w": None if offer.allowed_mw is None else [watts(bound) for bound in offer.allowed_mw],
        "outside": None if offer.allowed_mw is None else "deny" if offer.denies else "clamp",
        "profiles": list(offer.profiles),
        "ceiling": offer.ceiling,
        "observe": offer.observe,
    }


def _watts(power: Milliwatts | None) -> float | None:
    return None if power is None else watts(power)
