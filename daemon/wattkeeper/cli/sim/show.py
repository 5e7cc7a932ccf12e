"""``wattkeeper sim show``: the GPUs as they truly are."""

import asyncio
import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from wattkeeper.cli.output import Column, aligned, print_json
from wattkeeper.cli.sim.params import opened, state_option
from wattkeeper.simulator import Gpu, Node, Plan, Simulation
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import format_duration, format_energy, format_power

_WATCH_S = 0.5
_LEFT = frozenset({"model", "runs", "faults"})


@click.command(
    epilog="""\b
Examples:
  wattkeeper sim show
  wattkeeper sim show --watch
  wattkeeper sim show --json | jq '.gpus[].power_mw'
"""
)
@state_option
@click.option("--json", "as_json", is_flag=True, help="Print the data; power in mW, energy in mJ.")
@click.option("--watch", is_flag=True, help="Keep drawing it, until Ctrl-C.")
def show(state: Path, as_json: bool, watch: bool) -> None:
    """Shows the GPUs as they truly are, whatever sensors and faults stand before them, and what is planned."""
    if as_json and watch:
        raise click.UsageError("--json prints once")
    with opened(state) as simulation:
        if watch:
            with suppress(KeyboardInterrupt):
                asyncio.run(_watch(simulation))
            return
        node, plans = simulation.show(), simulation.plans()
    if as_json:
        print_json({**dataclasses.asdict(node), "plans": [_as_data(plan) for plan in plans]})
        return
    for line in _lines(node, plans):
        click.echo(line)


async def _watch(simulation: Simulation) -> None:
    from rich.live import Live  # slow to import, and only needed here
    from rich.text import Text

    clock = SystemClock()
    with Live(auto_refresh=False) as live:
        while True:
            lines = _lines(simulation.show(), simulation.plans())
            live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
            await clock.sleep(_WATCH_S)


def _as_data(plan: Plan) -> dict[str, object]:
    return {**dataclasses.asdict(plan.action), "kind": plan.action.kind.name.lower().replace("_", "-")} | {
        key: value for key, value in dataclasses.asdict(plan).items() if key != "action"
    }


def _lines(node: Node, plans: Sequence[Plan]) -> list[str]:
    rows = [_row(gpu) for gpu in node.gpus]
    columns = [Column(heading, right=heading not in _LEFT) for heading in (rows[0] if rows else ("GPU",))]
    lines = aligned(columns, [[*row.values()] for row in rows])
    if node.faults:
        lines.append(f"library: {', '.join(node.faults)}")
    if node.clock == "manual" or plans:
        lines.append(f"it is {node.now_ns / 1_000_000_000:g} s, by a clock that {_runs(node)}")
    return [*lines, *(f"planned {plan}" for plan in plans)]


def _runs(node: Node) -> str:
    return "stands still" if node.clock == "manual" else "runs"


def _row(gpu: Gpu) -> dict[str, str]:
    runs = "" if gpu.load_name is None else f"{gpu.load_name} {gpu.load:.0%}"
    if gpu.work_goal_s is not None and gpu.load_name is not None:
        runs += f", {gpu.work_done_s:.0f} of {gpu.work_goal_s:g} s"
    return {
        "GPU": str(gpu.minor),
        "index": str(gpu.index),  # NVML's
        "model": gpu.model,
        "runs": runs or "idle",
        "power": f"{gpu.power_mw / 1000:.0f} W",
        "sensed": f"{gpu.sensed_mw / 1000:.0f} W",
        "limit": format_power(gpu.requested_mw),
        "acting": f"{gpu.acting_mw / 1000:.0f} W",
        "speed": f"{gpu.speed:.0%}",
        "temp": f"{gpu.temperature_c:.0f} °C",
        "energy": format_energy(gpu.energy_mj),
        "capped": format_duration(gpu.capped_ns / 1_000_000_000),
        "faults": ", ".join((*gpu.faults, *([] if gpu.persistence else ["persistence off"]))),
    }
