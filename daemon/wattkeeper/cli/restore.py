"""``wattkeeper restore``: GPUs back to the limit that was there before the agent, with or without it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.client import AgentClient, run_dir_option
from wattkeeper.cli.hold import gpu_option, order, print_gpus
from wattkeeper.cli.output import print_json, shown
from wattkeeper.errors import AgentUnreachableError
from wattkeeper.units import format_power, watts

if TYPE_CHECKING:
    from wattkeeper.agent.offline import GivenBack


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  sudo wattkeeper restore              all GPUs of this node
  sudo wattkeeper restore --gpu 3
  sudo wattkeeper resume               capping goes on

\b
Where an agent runs it does it, and then only observes these GPUs until `wattkeeper resume`. Where none runs this
command does it, from what the agent saved. Exit code 1: a GPU could not be set back.""",
)
@gpu_option
@click.option("--config", type=click.Path(path_type=Path), help="The agent's settings, for when it does not run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; watts.")
@run_dir_option
@click.pass_context
def restore(
    context: click.Context, gpus: tuple[int, ...], config: Path | None, as_json: bool, run_dir: Path | None
) -> None:
    """Set GPUs back to their baseline: the limit that was there before Wattkeeper, or that the settings declare."""
    from wattkeeper.config.settings import settings_or_defaults  # YAML is slow to import

    settings = settings_or_defaults(config)
    place = run_dir or settings.run_dir
    try:
        print_gpus(order(AgentClient(place), "restore", gpus), as_json)
    except AgentUnreachableError:
        from wattkeeper.agent.offline import restore as without_agent  # NVML

        done = without_agent(replace(settings, run_dir=place), set(gpus) or None)
        _print(done, as_json)
        context.exit(1 if any(one.failed for one in done) else 0)


def _print(done: "tuple[GivenBack, ...]", as_json: bool) -> None:
    if as_json:
        gpus = [
            {
                "gpu": one.minor,
                "old_w": None if one.old_mw is None else watts(one.old_mw),
                "limit_w": None if one.new_mw is None else watts(one.new_mw),
                "note": one.note,
            }
            for one in done
        ]
        print_json({"gpus": gpus})
        return
    if not done:
        click.echo("no agent runs, and none has written a limit since boot: nothing to restore")
    for one in done:
        old = "?" if one.old_mw is None else format_power(one.old_mw)
        change = old if one.new_mw is None else f"{old} → {format_power(one.new_mw)}"
        click.echo(f"GPU {one.minor}: {change}: {shown(one.note)}")
