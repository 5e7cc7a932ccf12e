"""``wattkeeper hold`` and ``resume``: GPUs out of the agent's hands, and back into them."""

from pathlib import Path
from typing import Any

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.client import AgentClient, client, run_dir_option
from wattkeeper.cli.output import print_json, shown, watts
from wattkeeper.units import parse_duration


class _Duration(click.ParamType[float]):
    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """``2h`` as seconds."""
        seconds = parse_duration(str(value))
        if not seconds:
            self.fail(f"'{value}' is not a time, such as 90s, 30m, 2h or 1d", param, ctx)
        return seconds


gpu_option = click.option(
    "--gpu", "gpus", type=click.IntRange(0), multiple=True, metavar="N", help="By minor number; again for more [all]."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print what the agent answers.")


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  sudo wattkeeper hold --for 2h --reason "burn-in test"
  sudo wattkeeper hold --gpu 0 --gpu 3 --reason "ticket 4711"
  sudo nvidia-smi -i 0 -pl 300

\b
Metering goes on. The limit stays as it is: `wattkeeper restore` sets it to the baseline.""",
)
@gpu_option
@click.option("--for", "seconds", type=_Duration(), metavar="TIME", help="Such as 30m or 2h [until `resume`].")
@click.option("--reason", required=True, help="Why, for everybody who looks at the status.")
@json_option
@run_dir_option
def hold(gpus: tuple[int, ...], seconds: float | None, reason: str, as_json: bool, run_dir: Path | None) -> None:
    """Take GPUs out of the agent's hands: it writes no limit there until the time is over or `wattkeeper resume`."""
    if not reason.strip():
        raise click.UsageError("--reason is empty: somebody will ask")
    agent = client(run_dir)
    print_gpus(order(agent, "hold", gpus, seconds=seconds, reason=reason), as_json)


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  sudo wattkeeper resume
  sudo wattkeeper resume --gpu 3""",
)
@gpu_option
@json_option
@run_dir_option
def resume(gpus: tuple[int, ...], as_json: bool, run_dir: Path | None) -> None:
    """Give GPUs back to the agent, after `hold`, `restore`, or when it left them to another program."""
    print_gpus(order(client(run_dir), "resume", gpus), as_json)


def order(agent: AgentClient, action: str, gpus: tuple[int, ...], **details: object) -> list[dict[str, Any]]:
    """Orders an action for each GPU named, or for all; what the agent says of each."""
    answers = [agent.control(action, {"gpu": gpu, **details}) for gpu in gpus or (None,)]
    return [gpu for answer in answers for gpu in answer["gpus"]]


def print_gpus(gpus: list[dict[str, Any]], as_json: bool) -> None:
    """``GPU 0: 700 W: held``, a line each."""
    if as_json:
        print_json({"gpus": gpus})
        return
    if not gpus:
        click.echo("no GPU to manage on this node")
    for gpu in gpus:
        click.echo(f"GPU {shown(gpu['gpu'])}: {watts(gpu['limit_w'])}: {shown(gpu['note'])}")
