"""The command ``wattkeeper``. Sub-commands are imported when they are called: a hook must not wait for the rest."""

import errno
import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

from wattkeeper.cli import HELP
from wattkeeper.errors import WattkeeperError

_OUTPUT = "standard output"


class _Place(NamedTuple):
    module: str
    name: str
    short_help: str


COMMANDS = {
    "run": _Place("run", "run", "The agent of this node; systemd starts it."),
    "demo": _Place("demo", "demo", "The real agent on simulated GPUs, drawn live. Needs no GPU, Slurm or root."),
    "check": _Place("check", "check", "Validate settings and policies."),
    "explain": _Place("explain", "explain", "Why a job gets the cap it gets, step by step."),
    "policy": _Place("policy", "policy", "When the rules and ceilings of a policy hold."),
    "profiles": _Place("profiles", "profiles", "What users may ask for: profiles in watts, and bounds by partition."),
    "status": _Place("status", "status", "This node: GPUs, limits, who holds them, and why."),
    "job": _Place("job", "job", "What a job asked for, got and used."),
    "report": _Place("report", "report", "Energy by account, user, partition and day."),
    "restore": _Place("restore", "restore", "GPUs back to the limit that was there before Wattkeeper."),
    "hold": _Place("hold", "hold", "Take GPUs out of the agent's hands."),
    "resume": _Place("hold", "resume", "Give held GPUs back to the agent."),
    "sim": _Place("sim", "sim", "Create, script and break simulated GPUs."),
    "hook": _Place("hook", "hook", "What the Prolog and Epilog call where curl is missing."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's module; None where there is no such command."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(import_module(f"wattkeeper.cli.{place.module}"), place.name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{place} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help, without an import."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.short_help) for name, place in COMMANDS.items()])


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version  # slow to import, and only needed here

        click.echo(f"wattkeeper {version('wattkeeper')}")
        context.exit()


@click.group(
    cls=LazyGroup,
    context_settings=HELP,
    epilog="""\b
Examples:
  wattkeeper demo                       see it work, here and now
  wattkeeper check policy.yaml          is this policy right?
  wattkeeper status                     what are this node's GPUs doing, and why?
  wattkeeper explain 1234               why did job 1234 get this cap?
  wattkeeper job 1234                   what did job 1234 get, and use?
  sudo wattkeeper report --since 30d    who used how much energy on this node?
  sudo wattkeeper hold --gpu 3 --for 2h --reason "burn-in test"

\b
Users ask for a cap in their job's comment: sbatch --comment="power=250W" job.sh
Exit codes: 0 fine; 1 the thing asked about is not so; 2 wrong use.
Completion in bash: eval "$(_WATTKEEPER_COMPLETE=bash_source wattkeeper)"; zsh and fish likewise.""",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def cli() -> None:
    """Power limits for the GPUs of Slurm jobs, from policy, with every joule accounted for.

    On each GPU node an agent gives a job's GPUs the power limit that the site's policy says, before the job's first
    process runs, and puts them back when the job ends. These commands look at that agent, steer it, and test policy
    without one. WATTKEEPER_CONFIG names its settings, if they are not /etc/wattkeeper/wattkeeper.yaml;
    WATTKEEPER_RUN_DIR says where its sockets are, over their run_dir.
    """


def main() -> None:
    """Runs the command; what a person can mend is one line on standard error and exit status 1."""
    _prepare_streams()
    try:
        try:
            cli(prog_name="wattkeeper")
        finally:
            sys.stdout.flush()
    except WattkeeperError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename != _OUTPUT:
            raise
        _give_up(1)
        if error.errno == errno.EPIPE:
            sys.exit(1)  # as click does: whoever closed the pipe knows
        _fail(f"{_OUTPUT}: cannot be written ({error.strerror}): make room, or send it elsewhere")


def _fail(text: str) -> NoReturn:
    try:
        click.echo(f"wattkeeper: {text}", err=True)
    except OSError:
        _give_up(2)
    sys.exit(1)


def _give_up(stream: int) -> None:
    """Where the system takes no more: at its exit Python tries once more, and would end with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


class _Output(io.FileIO):
    """Standard output, named in its errors: they are told from those of other files."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = _OUTPUT
            raise


def _prepare_streams() -> None:
    """Whoever closed a stream wants nothing of it; what its encoding lacks is escaped.

    Left closed, its number would become that of the next file that is opened: the ledger, say.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - it stays open
    out, error = sys.stdout, sys.stderr
    if isinstance(out, io.TextIOWrapper) and out is sys.__stdout__:  # a test's is another
        raw = io.BufferedWriter(_Output(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(
            raw, out.encoding, "backslashreplace", line_buffering=out.line_buffering, write_through=out.write_through
        )
    if isinstance(error, io.TextIOWrapper):
        error.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
