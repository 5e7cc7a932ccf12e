"""``wattkeeper sim``: creates, scripts and breaks simulated GPUs."""

import dataclasses
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import click

from wattkeeper.cli import HELP
from wattkeeper.errors import WattkeeperError
from wattkeeper.simulator import FAULTS, PROFILES, FaultKind, Node, Profile, Simulation, SimulatorError
from wattkeeper.simulator.library import find_library
from wattkeeper.units import (
    Milliwatts,
    format_duration,
    format_energy,
    format_power,
    parse_duration,
    parse_power,
)

_ALL = -1


def _power(text: str) -> Milliwatts:
    power = parse_power(text)
    if power is None:
        raise click.BadParameter(f"{text!r} is not a power (such as 250W or 0.25kW)")
    return power


def _load_ratio(text: str) -> float:
    try:
        ratio = float(text.removesuffix("%")) / 100
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise click.BadParameter(f"{text!r} is not a load from 0% to 100%")
    return ratio


def _order(text: str) -> tuple[int, ...]:
    minors = text.split(",")
    if not all(minor.isdecimal() for minor in minors):
        raise click.BadParameter(f"{text!r} is not a list of minor numbers (such as 3,1,0,2)")
    return tuple(map(int, minors))


def _gpu(text: str) -> int:
    """A minor number, or ``all`` as -1."""
    if text.lower() == "all":
        return _ALL
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither a minor number nor `all`")
    return int(text)


_state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="WATTKEEPER_SIM_STATE",
    required=True,
    show_envvar=True,
    help="The folder that holds the simulated GPUs.",
)
_gpu_argument = click.argument("gpu", type=_gpu, metavar="GPU|all")


@contextmanager
def _errors() -> Iterator[None]:
    """Tells a person what was wrong, without a trace."""
    try:
        yield
    except WattkeeperError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _opened(state: Path) -> Iterator[Simulation]:
    with _errors(), Simulation.open(state) as simulation:
        yield simulation


def _minors(simulation: Simulation, gpu: int) -> list[int]:
    return [one.minor for one in simulation.show().gpus] if gpu == _ALL else [gpu]


@click.group(
    context_settings=HELP,
    epilog="""\b
Examples:
  eval "$(wattkeeper sim env --state /tmp/gpus --model H100 --gpus 4)"
  wattkeeper sim load all 80%
  wattkeeper sim set 0 --limit 300W
  wattkeeper sim show
  wattkeeper sim fault 2 hang
After the first line every NVML client of that shell (gpustat, nvitop, your own) sees these GPUs.
""",
)
def sim() -> None:
    """Creates, scripts and breaks simulated GPUs.

    They live in a folder; no process has to run. GPUs are named by minor number (the N of /dev/nvidiaN).
    """


@sim.command(
    epilog="""\b
Examples:
  eval "$(wattkeeper sim env --state /tmp/gpus --model A100 --gpus 8 --profile driver)"
  eval "$(wattkeeper sim env --state /tmp/gpus --gpus 4 --order 3,1,0,2 --limit 500W --replace)"
"""
)
@_state_option
@click.option("--model", help="H100 (the default), H100-PCIe, A100, V100 or V100-PCIe.")
@click.option("--gpus", type=click.IntRange(0, 16), help="How many. Default: 4.")
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    help="How long calls take: none (the default) or driver, as long as with a real one.",
)
@click.option(
    "--order", type=_order, metavar="MINORS", help="The minor numbers in NVML's index order, such as 3,1,0,2."
)
@click.option("--limit", type=_power, metavar="POWER", help="The power limit found on every GPU, such as 500W.")
@click.option("--seed", help="What the UUIDs are made from. Default: this host's name and the folder.")
@click.option("--replace", is_flag=True, help="Throw away GPUs that are there already.")
def env(
    state: Path,
    model: str | None,
    gpus: int | None,
    profile: Profile | None,
    order: tuple[int, ...] | None,
    limit: Milliwatts | None,
    seed: str | None,
    replace: bool,
) -> None:
    """Creates simulated GPUs and prints the shell exports under which any NVML client sees them.

    GPUs that are there already are kept as they are, and must be such as asked for.
    """
    with _errors():
        if (state / "state").exists() and not replace:
            with Simulation.open(state) as simulation:
                _require_same(simulation, model, gpus, profile, order)
        else:
            Simulation.create(
                state,
                model=model or "H100",
                gpus=4 if gpus is None else gpus,
                order=order,
                limit_mw=limit,
                profile=profile or "none",
                seed=seed,
                replace=replace,
            ).close()
        folder = shlex.quote(str(find_library().parent))
    click.echo(f'export LD_LIBRARY_PATH={folder}"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"')
    click.echo(f"export WATTKEEPER_SIM_STATE={shlex.quote(str(state.absolute()))}")


def _require_same(
    simulation: Simulation,
    model: str | None,
    gpus: int | None,
    profile: Profile | None,
    order: tuple[int, ...] | None,
) -> None:
    """Refuses to pass off the GPUs that are there for other ones."""
    node = simulation.show()
    found_order = tuple(gpu.minor for gpu in sorted(node.gpus, key=lambda gpu: gpu.index))
    wrong = [
        f"--{option} {asked}, not {found}"
        for option, asked, found, same in (
            (
                "model",
                model,
                node.gpus[0].model if node.gpus else None,
                all(gpu.model.lower() == (model or "").lower() for gpu in node.gpus),
            ),
            ("gpus", gpus, len(node.gpus), gpus == len(node.gpus)),
            ("profile", profile, node.profile, profile == node.profile),
            ("order", order, found_order, order == found_order),
        )
        if asked is not None and not same
    ]
    if wrong:
        raise SimulatorError(
            f"the GPUs in {simulation.state} are other ones than asked for: {'; '.join(wrong)} (mend: --replace)"
        )


@sim.command(name="set", epilog="\b\nExample:\n  wattkeeper sim set all --limit 300W\n")
@_gpu_argument
@_state_option
@click.option("--limit", type=_power, metavar="POWER", required=True, help="The power limit, such as 300W.")
def set_(gpu: int, state: Path, limit: Milliwatts) -> None:
    """Sets a power limit, as another tool would behind the agent's back."""
    with _opened(state) as simulation:
        for minor in _minors(simulation, gpu):
            simulation.set_limit(minor, limit)


@sim.command(epilog="\b\nExample:\n  wattkeeper sim load 0 75%\n")
@_gpu_argument
@click.argument("load", type=_load_ratio, metavar="PERCENT")
@_state_option
def load(gpu: int, load: float, state: Path) -> None:
    """Puts work on a GPU: 0% is idle, 100% draws the model's peak where the limit allows."""
    with _opened(state) as simulation:
        for minor in _minors(simulation, gpu):
            simulation.load(minor, load)


@sim.command(
    epilog="""\b
Kinds:
  hang [TIME]     calls block, for TIME each (such as 5s), or until the fault is cleared
  lost            calls answer GPU_IS_LOST
  ignored         setting a limit succeeds and changes nothing
  no-permission   setting a limit answers NO_PERMISSION
  oob POWER       an out-of-band limit, as a BMC sets one: holds where it is below the requested
  none            mends everything
\b
Examples:
  wattkeeper sim fault 2 hang 5s
  wattkeeper sim fault all oob 400W
  wattkeeper sim fault all none
"""
)
@_gpu_argument
@click.argument("kind", type=click.Choice([*FAULTS, "none"]))
@click.argument("value", required=False)
@_state_option
def fault(gpu: int, kind: FaultKind | Literal["none"], value: str | None, state: Path) -> None:
    """Breaks a GPU, or mends it."""
    number: float | None = None
    if kind == "oob":
        number = parse_power(value or "")
        if number is None:
            raise click.UsageError("oob needs a power, such as 400W")
    elif kind == "hang" and value is not None:
        number = parse_duration(value)
        if number is None:
            raise click.UsageError(f"{value!r} is not a time, such as 5s")
    elif value is not None:
        raise click.UsageError(f"{kind} takes no value")
    with _opened(state) as simulation:
        for minor in _minors(simulation, gpu):
            if kind == "none":
                simulation.clear_fault(minor)
            else:
                simulation.fault(minor, kind, number)


@sim.command(name="reload-driver")
@_state_option
def reload_driver(state: Path) -> None:
    """Loads the driver anew: limits at their defaults, energy counters at 0."""
    with _opened(state) as simulation:
        simulation.driver_reload()


@sim.command()
@_state_option
@click.option("--json", "as_json", is_flag=True, help="Print the data; power in mW, energy in mJ.")
def show(state: Path, as_json: bool) -> None:
    """Shows the GPUs as they truly are, whatever faults stand before them."""
    with _opened(state) as simulation:
        node = simulation.show()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(node), indent=2))
    else:
        _draw(node)


def _draw(node: Node) -> None:
    from rich.console import Console  # slow to import, and only needed here
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("GPU", "index", "model", "load", "power", "limit", "enforced", "energy", "capped", "faults"):
        table.add_column(heading, justify="left" if heading in ("model", "faults") else "right")
    for gpu in node.gpus:
        table.add_row(
            str(gpu.minor),
            str(gpu.index),
            gpu.model,
            f"{gpu.load:.0%}",
            format_power(gpu.power_mw),
            format_power(gpu.requested_mw),
            format_power(gpu.enforced_mw),
            format_energy(gpu.energy_mj),
            format_duration(gpu.capped_ns / 1_000_000_000),
            ", ".join(gpu.faults),
        )
    Console(highlight=False).print(table)
