"""``wattkeeper sim env`` and ``mig``: what GPUs there are."""

import shlex
from pathlib import Path
from typing import Any

import click

from wattkeeper.cli.sim.params import POWER, errors, gpu_argument, minors_of, opened, state_option
from wattkeeper.simulator import PROFILES, SENSORS, Simulation, SimulatorError, Target, parse_selection
from wattkeeper.simulator.written import parse_share
from wattkeeper.units import Milliwatts

_DEFAULTS = {"model": "H100", "profile": "none", "sensors": "card", "gain": 0.0, "driver": "580.65.06"}


def _order(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    minors = text.split(",")
    if not all(minor.isascii() and minor.isdecimal() for minor in minors):
        raise click.BadParameter(f"{text!r} is not a list of minor numbers (such as 3,1,0,2)")
    return tuple(map(int, minors))


def _gain(_: click.Context, __: click.Parameter, text: str | None) -> float | list[float] | None:
    if text is None:
        return None
    shares = [parse_share(part) for part in text.split(",")]
    found = [share for share in shares if share is not None]
    if len(found) != len(shares):
        raise click.BadParameter(f"{text!r} is not a percentage, or one for each GPU (such as 2% or 2%,0%,-3%,0%)")
    return found if len(found) > 1 else found[0]


@click.command(
    epilog="""\b
Examples:
  eval "$(wattkeeper sim env --state /tmp/gpus --model A100 --gpus 8 --profile driver)"
  eval "$(wattkeeper sim env --state /tmp/gpus --model H100:2,A100:2 --order 3,1,0,2)"
  eval "$(wattkeeper sim env --state /tmp/gpus --model ./mine.yaml:4 --limit 500W --replace)"
  eval "$(wattkeeper sim env --state /tmp/gpus --driver 525 --sensors ideal --replace)"
`wattkeeper sim models` lists the models.
"""
)
@state_option
@click.option("--model", metavar="MODELS", help="A model, H100:2,A100:2, or a YAML file of your own. Default: H100.")
@click.option("--gpus", type=click.IntRange(0, 16), help="How many. Default: 4.")
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    help="How long calls take: none (the default) or driver, as long as with a real one.",
)
@click.option(
    "--order", callback=_order, metavar="MINORS", help="The minor numbers in NVML's index order, such as 3,1,0,2."
)
@click.option("--limit", type=POWER, metavar="POWER", help="The power limit found on every GPU, such as 500W.")
@click.option("--seed", help="What the UUIDs are made from. Default: this host's name and the folder.")
@click.option("--sensors", type=click.Choice(SENSORS), help="card (the default): they lag and average; or ideal.")
@click.option(
    "--gain", callback=_gain, metavar="PERCENT", help="How much more sensors read than is drawn; or one each: 2%,0%,…"
)
@click.option("--driver", metavar="VERSION", help="The driver's version, or the branch of an older one such as 525.")
@click.option("--replace", is_flag=True, help="Throw away GPUs that are there already.")
def env(state: Path, replace: bool, limit: Milliwatts | None, **asked: Any) -> None:
    """Creates simulated GPUs and prints the shell exports under which any NVML client sees them.

    GPUs that are there already are kept as they are, and must be such as asked for.
    """
    with errors():
        if (state / "state").exists() and not replace:
            simulation = Simulation.open(state)
            with simulation:
                _require_same(simulation, asked)
                folder = simulation.library_folder()
        else:
            given = {name: value for name, value in asked.items() if value is not None}
            with Simulation.create(state, limit_mw=limit, replace=replace, **{**_DEFAULTS, **given}) as made:
                folder = made.library_folder()
    click.echo(f'export LD_LIBRARY_PATH={shlex.quote(str(folder))}"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"')
    click.echo(f"export WATTKEEPER_SIM_STATE={shlex.quote(str(state.absolute()))}")


def _require_same(simulation: Simulation, asked: dict[str, Any]) -> None:
    """Refuses to pass off the GPUs that are there for other ones."""
    node = simulation.show()
    models = [gpu.model for gpu in node.gpus]
    wanted = asked["model"] and [model.key for model in parse_selection(asked["model"], _count(asked, len(models)))]
    gains = [gpu.gain for gpu in node.gpus]
    order = tuple(gpu.minor for gpu in sorted(node.gpus, key=lambda gpu: gpu.index))
    wrong = [
        f"--{option} {asked[option]}, not {found}"
        for option, found, same in (
            ("model", ",".join(dict.fromkeys(models)), not wanted or set(wanted) == set(models)),
            ("gpus", len(models), asked["gpus"] == len(models)),
            ("profile", node.profile, asked["profile"] == node.profile),
            ("order", order, asked["order"] == order),
            ("gain", gains, asked["gain"] in (gains, gains[0] if len({*gains}) == 1 else None)),
            ("driver", node.driver_version, node.driver_version.startswith(asked["driver"] or "")),
        )
        if asked[option] is not None and not same
    ]
    if wanted and not wrong and wanted != models:
        wrong = [f"--model {asked['model']}, not {','.join(models)}"]
    if wrong:
        raise SimulatorError(
            f"the GPUs in {simulation.state} are other ones than asked for: {'; '.join(wrong)} (mend: --replace)"
        )


def _count(asked: dict[str, Any], found: int) -> int | None:
    """How many of a model are meant, where `--model` does not count itself."""
    if asked["gpus"] is not None:
        return int(asked["gpus"])
    return None if "," in asked["model"] or ":" in asked["model"] else found


@click.command(
    epilog="""\b
Examples:
  wattkeeper sim mig 0 3g.40gb 3g.40gb
  wattkeeper sim mig all 1g.10gb 1g.10gb 2g.20gb
  wattkeeper sim mig 0                          MIG off
"""
)
@gpu_argument
@click.argument("instances", nargs=-1, metavar="[INSTANCE]...")
@state_option
def mig(gpu: Target, instances: tuple[str, ...], state: Path) -> None:
    """Cuts a GPU into MIG instances, or (without any) turns MIG off. Its processes are gone."""
    with opened(state) as simulation:
        for minor in minors_of(simulation, gpu):
            simulation.set_mig(minor, instances)
