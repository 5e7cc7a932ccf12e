"""``wattkeeper run``: the agent."""

import asyncio
from pathlib import Path

import click

from wattkeeper.cli import HELP


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  systemctl start wattkeeper                       the usual way
  wattkeeper check && sudo wattkeeper run --single   by hand, with its log on the terminal

\b
SIGHUP (systemctl reload wattkeeper) reads settings and policies again; mistakes leave the old ones in force.
SIGTERM ends it; what becomes of the limits then is the setting on_stop.""",
)
@click.option("--config", type=click.Path(path_type=Path), help="The settings [/etc/wattkeeper/wattkeeper.yaml].")
@click.option(
    "--single", is_flag=True, help="Set limits in this process, which then needs root, and not through the actuator."
)
@click.pass_context
def run(context: click.Context, config: Path | None, single: bool) -> None:
    """Run the agent of this node until it is told to stop.

    It needs no privilege: the limits are set by wattkeeper-actuator.service, which it asks over a socket in run_dir.
    With --single it sets them itself, and needs root where the GPUs are real. A node without GPUs or driver is fine:
    the agent is ready and has nothing to do.
    """
    from wattkeeper.agent.wiring import serve  # the agent and its libraries, which no other command needs
    from wattkeeper.config.settings import DEFAULT_PATH, settings_file

    context.exit(asyncio.run(serve(settings_file(config) or DEFAULT_PATH, single=single)))
