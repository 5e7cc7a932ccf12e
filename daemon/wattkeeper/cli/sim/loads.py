"""``wattkeeper sim load``: work for simulated GPUs."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from wattkeeper.cli.sim.params import (
    TIME,
    errors,
    gpu_argument,
    minors_of,
    opened,
    state_option,
    when,
    when_options,
)
from wattkeeper.simulator import Gpu, Node, Process, Simulation, SimulatorError, Target, Trace, profiles
from wattkeeper.simulator.written import parse_share
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import Millijoules, format_energy

_POLL_S = 0.1
_STEPS = 1000


@click.command(
    epilog="""\b
Examples:
  wattkeeper sim load all 80%
  wattkeeper sim load 0 training
  wattkeeper sim load 0 bert --work 60s --wait        60 s at full speed; longer under a limit
  wattkeeper sim load 1 recorded.csv --once
  wattkeeper sim load 0 training --pid $$
`wattkeeper sim profiles` lists the profiles. A CSV file has the columns seconds,watts or
seconds,watts,memory; each row lasts so long and draws so much.
"""
)
@gpu_argument
@click.argument("load", metavar="PROFILE|PERCENT|FILE.csv")
@click.option("--level", metavar="PERCENT", help="So much of the profile. Default: 100%.")
@click.option("--work", type=TIME, metavar="TIME", help="The load ends when so much work, at full speed, is done.")
@click.option("--once", is_flag=True, help="Run through the file once, not over and over.")
@click.option("--pid", type=click.IntRange(1), metavar="N", help="The process that does it, as NVML shows it.")
@click.option("--wait", is_flag=True, help="Wait until it is done; say how long that took, and how much energy.")
@when_options
@state_option
def load(
    gpu: Target,
    load: str,
    level: str | None,
    work: float | None,
    once: bool,
    pid: int | None,
    wait: bool,
    state: Path,
    **options: object,
) -> None:
    """Puts work on a GPU: a profile, a steady share of its peak (0% is idle), or power recorded over time."""
    share = 1.0 if level is None else _share(level)
    with errors():
        what = _load(load, once)
    times = when(options)
    if wait and times:
        raise click.UsageError("--wait is for what begins at once")
    if once and not isinstance(what, Trace):
        raise click.UsageError("--once is for files")
    with opened(state) as simulation:
        minors = minors_of(simulation, gpu)
        before = [simulation.gpu(minor) for minor in minors]
        if wait and simulation.show().clock == "manual":
            raise SimulatorError("the clock stands still (mend: wattkeeper sim clock real, or no --wait)")
        if wait and work is None and not once:
            raise click.UsageError("--wait needs an end: --work, or --once with a file")
        simulation.load(gpu, what, level=share, work_s=work, **times)
        for minor in minors if pid is not None else ():
            simulation.set_processes(minor, [Process(pid or 0)])
        if wait:
            _wait(simulation, before)


def _share(text: str) -> float:
    share = parse_share(text)
    if share is None or not 0 <= share <= 1:
        raise click.BadParameter(f"{text!r} is not a load from 0% to 100%")
    return share


def _load(text: str, once: bool) -> float | str | Trace:
    """Raises SimulatorError, ConfigError."""
    if text in profiles():
        return text
    if text.endswith(".csv"):
        return Trace.from_csv(text, once=once)
    if parse_share(text) is None:
        known = ", ".join(profiles())
        raise click.BadParameter(f"{text!r} is no load (allowed: {known}, 0% to 100%, or a file that ends in .csv)")
    return _share(text)


def _wait(simulation: Simulation, before: Sequence[Gpu]) -> None:
    """Until all of them are done. What was drawn after the end of the work is taken off again."""
    minors = {gpu.minor: gpu for gpu in before}
    if sys.stderr.isatty():
        with click.progressbar(length=_STEPS, label="working", file=sys.stderr) as bar:
            node = _finish(simulation, [*minors], lambda done: bar.update(int(done * _STEPS) - bar.pos))
    else:
        node = _finish(simulation, [*minors], lambda _: None)
    for minor, began in minors.items():
        gpu = node.gpus[minor]
        ends_ns = gpu.load_ends_ns or node.now_ns
        idle_mj = gpu.power_mw * (node.now_ns - ends_ns) // 1_000_000_000
        energy = Millijoules(gpu.energy_mj - began.energy_mj - idle_mj)
        took_s = (ends_ns - gpu.load_started_ns) / 1_000_000_000
        click.echo(f"GPU {minor}: {gpu.work_done_s:.2f} s of work in {took_s:.2f} s, {format_energy(energy)}")


def _finish(simulation: Simulation, minors: Sequence[int], tell: Callable[[float], None]) -> Node:
    """The node as it is when these GPUs are done; ``tell`` hears how far they are. Raises SimulatorError."""
    clock = SystemClock()
    started = {minor: simulation.gpu(minor).load_started_ns for minor in minors}
    while True:
        node = simulation.show()
        gpus = [node.gpus[minor] for minor in minors]
        if any(gpu.load_started_ns != started[gpu.minor] for gpu in gpus):
            raise SimulatorError("another load took its place meanwhile")
        tell(min(_progress(gpu, node.now_ns) for gpu in gpus) if gpus else 1.0)
        if all(gpu.load_name is None for gpu in gpus):
            return node
        asyncio.run(clock.sleep(_POLL_S))


def _progress(gpu: Gpu, now_ns: int) -> float:
    if gpu.load_name is None or gpu.load_ends_ns is None:
        return float(gpu.load_name is None)
    whole = gpu.load_ends_ns - gpu.load_started_ns
    return (now_ns - gpu.load_started_ns) / whole if whole else 1.0
