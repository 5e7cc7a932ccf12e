"""``wattkeeper hook``: what the Prolog and Epilog call where curl is missing, or where no agent answers.

The job waits for these, so little is imported. The hooks themselves leave the event in the spool where this fails.
"""

import os
import sys
from pathlib import Path

import click

from wattkeeper.cli import HELP
from wattkeeper.errors import WattkeeperError
from wattkeeper.text import printable

DEADLINES_S = {"prolog": 1.7, "epilog": 0.25}
REFUSED = 9
"""The exit status that tells the Prolog: `strict: fail` is set, and the caps are not."""


@click.group(
    context_settings=HELP,
    epilog="""\b
Exit codes of prolog and epilog: 0 delivered; 9 the agent wants the job not to start (strict: fail); 1 anything else.
Install deploy/slurm/prolog.d/50-wattkeeper and epilog.d/50-wattkeeper: they call this themselves.""",
)
def hook() -> None:
    """What the Prolog and Epilog of Slurm call where curl is missing. Not for people."""


@hook.command()
def prolog() -> None:
    """Report a job's start to the agent, and wait until its caps are set."""
    _post("prolog")


@hook.command()
def epilog() -> None:
    """Report a job's end to the agent."""
    _post("epilog")


@hook.command("give-back")
@click.option("--config", type=click.Path(path_type=Path), help="The settings [/etc/wattkeeper/…].")
def give_back(config: Path | None) -> None:
    """Set the ended job's GPUs back to their baseline where no agent runs."""
    from dataclasses import replace

    from wattkeeper.agent.offline import give_back as without_agent
    from wattkeeper.config.settings import settings_or_defaults

    settings = settings_or_defaults(config)
    place = os.environ.get("WATTKEEPER_RUN_DIR")
    done = without_agent(replace(settings, run_dir=Path(place)) if place else settings, os.environ)
    sys.exit(1 if any(one.failed for one in done) else 0)


def _post(event: str) -> None:
    """Hands on the environment byte for byte as this process got it: a user's newline stays inside of its value."""
    from wattkeeper.cli.client import DEFAULT_RUN_DIR, AgentClient

    place = os.environ.get("WATTKEEPER_RUN_DIR")
    agent = AgentClient(Path(place) if place else DEFAULT_RUN_DIR, DEADLINES_S[event])
    try:
        answer = agent.post_event(event, Path("/proc/self/environ").read_bytes())
    except WattkeeperError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    if answer.fine:
        return
    click.echo(printable(answer.text().strip() or f"HTTP status {answer.status}", 500), err=True)
    sys.exit(REFUSED if answer.status == 409 and event == "prolog" else 1)
