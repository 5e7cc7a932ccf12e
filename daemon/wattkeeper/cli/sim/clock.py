"""``wattkeeper sim clock``: the GPUs' time."""

from pathlib import Path
from typing import Literal

import click

from wattkeeper.cli.sim.params import TIME, opened, state_option


@click.command(
    epilog="""\b
Examples:
  wattkeeper sim clock manual            it stands still
  wattkeeper sim clock advance 1h        what is planned on the way happens
  wattkeeper sim clock real              it runs on
"""
)
@click.argument("what", type=click.Choice(("manual", "real", "advance")))
@click.argument("time", type=TIME, metavar="[TIME]", required=False)
@state_option
def clock(what: Literal["manual", "real", "advance"], time: float | None, state: Path) -> None:
    """Stops the GPUs' time, moves it ahead, or lets it run."""
    if (time is None) is (what == "advance"):
        raise click.UsageError("advance needs a time, such as 10s" if time is None else f"{what} takes no time")
    with opened(state) as simulation:
        if time is not None:
            simulation.advance(time)
        elif what != "advance":
            simulation.set_clock(what)
        click.echo(f"it is {simulation.show().now_ns / 1_000_000_000:g} s")
