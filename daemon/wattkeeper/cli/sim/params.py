"""What the commands of ``wattkeeper sim`` take, and how they find the GPUs."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import click

from wattkeeper.errors import WattkeeperError
from wattkeeper.simulator import Simulation, Target, When
from wattkeeper.simulator.plans import EVENTS
from wattkeeper.units import Milliwatts, parse_duration, parse_power

STATE = "WATTKEEPER_SIM_STATE"

_Command = TypeVar("_Command", bound=Callable[..., Any])


def parse_power_option(text: str) -> Milliwatts:
    """Milliwatts. Raises BadParameter."""
    power = parse_power(text)
    if power is None:
        raise click.BadParameter(f"{text!r} is not a power (such as 250W or 0.25kW)")
    return power


def parse_time_option(text: str) -> float:
    """Seconds. Raises BadParameter."""
    seconds = parse_duration(text)
    if seconds is None:
        raise click.BadParameter(f"{text!r} is not a time (such as 500ms, 10s or 2h)")
    return seconds


def _gpu(text: str) -> Target:
    return _target(text, ("all",))


def _gpu_or_library(text: str) -> Target:
    return _target(text, ("all", "library"))


def _target(text: str, words: Sequence[Literal["all", "library"]]) -> Target:
    for word in words:
        if text.lower() == word:
            return word
    if not (text.isascii() and text.isdecimal() and len(text) < 4):
        raise click.BadParameter(
            f"{text!r} is neither a minor number nor {' nor '.join(f'`{word}`' for word in words)}"
        )
    return int(text)


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """The minor numbers that there are, and the words that stand for more."""
    words = ["all"]
    if "library" in str(parameter.metavar):
        words.append("library")
    state = context.params.get("state") or os.environ.get(STATE)
    try:
        with Simulation.open(state or "") as simulation:
            words = [*(str(gpu.minor) for gpu in simulation.show().gpus), *words]
    except WattkeeperError:
        pass
    return [word for word in words if word.startswith(incomplete)]


POWER, TIME = parse_power_option, parse_time_option

state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    envvar=STATE,
    required=True,
    show_envvar=True,
    help="The folder that holds the simulated GPUs.",
)
gpu_argument = click.argument("gpu", type=_gpu, metavar="GPU|all", shell_complete=_complete)
optional_gpu_argument = click.argument("gpu", type=_gpu, metavar="[GPU|all]", shell_complete=_complete, required=False)
gpu_or_library_argument = click.argument(
    "gpu", type=_gpu_or_library, metavar="GPU|all|library", shell_complete=_complete
)


def when_options(command: _Command) -> _Command:
    """``--after``, ``--for``, ``--every``, ``--on`` and ``--nth``; ``when`` reads them."""
    options = (
        click.option("--after", type=TIME, metavar="TIME", help="So long from now, or from the event of --on."),
        click.option("--for", "lasting", type=TIME, metavar="TIME", help="Undone after so long."),
        click.option("--every", type=TIME, metavar="TIME", help="And again after so long, each time."),
        click.option(
            "--on",
            type=click.Choice(list(EVENTS)),
            help="When an NVML client sets that GPU's limit, or opens the library.",
        ),
        click.option("--nth", type=click.IntRange(1), metavar="N", help="When that happens for the Nth time."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def when(options: Mapping[str, Any]) -> When:
    """What was given of ``when_options``; the rest of ``options`` stays out."""
    given = {name: options[name] for name in ("after", "lasting", "every", "on", "nth") if options[name] is not None}
    return cast("When", given)


@contextmanager
def errors() -> Iterator[None]:
    """Tells a person what was wrong, without a trace."""
    try:
        yield
    except WattkeeperError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def opened(state: Path) -> Iterator[Simulation]:
    """The GPUs of a folder."""
    with errors(), Simulation.open(state) as simulation:
        yield simulation


def minors_of(simulation: Simulation, gpu: Target) -> list[int]:
    """The GPUs that are meant. Raises SimulatorError where there is no such one."""
    if isinstance(gpu, int):
        return [simulation.gpu(gpu).minor]
    return [one.minor for one in simulation.show().gpus]
