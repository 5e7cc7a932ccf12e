"""What happens to simulated GPUs: other writers, faults, resets, scenarios."""

from pathlib import Path
from typing import Any, Literal

import click

from wattkeeper.cli.sim.params import (
    POWER,
    errors,
    gpu_argument,
    gpu_or_library_argument,
    opened,
    optional_gpu_argument,
    state_option,
    when,
    when_options,
)
from wattkeeper.simulator import FAULTS, Action, FaultKind, Simulation, SimulatorError, Target
from wattkeeper.simulator.written import parse_energy, parse_value, value_form
from wattkeeper.units import Milliwatts

_MORE = ("none", "counter-jump", "xid")


@click.command(
    name="set",
    epilog="""\b
Examples:
  wattkeeper sim set all --limit 300W
  wattkeeper sim set 0 --limit 400W --every 2s        another tool that keeps writing
  wattkeeper sim set 1 --persistence off
""",
)
@gpu_argument
@click.option("--limit", type=POWER, metavar="POWER", help="The power limit, such as 300W.")
@click.option("--module-limit", type=POWER, metavar="POWER", help="That of the module shared with a CPU (GH200).")
@click.option("--persistence", type=click.Choice(("on", "off")), help="Off: limits go with the last client.")
@when_options
@state_option
def set_(
    gpu: Target,
    limit: Milliwatts | None,
    module_limit: Milliwatts | None,
    persistence: str | None,
    state: Path,
    **options: Any,
) -> None:
    """Sets what another tool might, behind the agent's back."""
    actions: list[Action] = []
    if limit is not None:
        actions.append(Action.limit(gpu, limit))
    if module_limit is not None:
        actions.append(Action.module_limit(gpu, module_limit))
    if persistence is not None:
        actions.append(Action.persistence(gpu, persistence == "on"))
    if not actions:
        raise click.UsageError("say what to set: --limit, --module-limit or --persistence")
    with opened(state) as simulation:
        for action in actions:
            simulation.act(action, **when(options))


@click.command(
    epilog="""\b
Kinds, of a GPU:
  hang [TIME]          calls block, for TIME each (such as 5s), or until mended
  slow TIME            calls take so much longer
  lost                 calls answer GPU_IS_LOST, until `sim reset GPU`
  reset-required, unknown, timeout, irq
                       calls answer that error
  no-permission, in-use
                       setting a limit answers that error
  ignored              setting a limit succeeds and changes nothing
  oob POWER            an out-of-band limit, as a BMC sets one: holds where it is below the requested
  counter-stuck        the energy counter stands still
  counter-jump ENERGY  it jumps, by 5kJ or -500J
  xid NUMBER           the driver reports an error
Of the whole library (GPU is `library`):
  hang, slow, unknown, timeout, irq, no-driver, wrong-driver
Mending:
  none [KIND]          mends everything, or that
\b
Examples:
  wattkeeper sim fault 2 hang 5s
  wattkeeper sim fault all oob 400W --after 10s --for 5s
  wattkeeper sim fault 1 ignored --on set-limit --nth 3
  wattkeeper sim fault library no-driver --for 30s
  wattkeeper sim fault all none
"""
)
@gpu_or_library_argument
@click.argument("kind", type=click.Choice([*FAULTS, *_MORE]), metavar="KIND")
@click.argument("value", required=False)
@when_options
@state_option
def fault(gpu: Target, kind: FaultKind, value: str | None, state: Path, **options: Any) -> None:
    """Breaks a GPU or the whole library for NVML's clients, or mends it: now, later, again and again."""
    with errors():
        action = _action(gpu, kind, value)
    with opened(state) as simulation:
        simulation.act(action, **when(options))


def _action(gpu: Target, kind: FaultKind | Literal["none", "counter-jump", "xid"], value: str | None) -> Action:
    if kind == "none":
        return _mend(gpu, value)
    if kind == "counter-jump":
        energy = parse_energy(value or "")
        if energy is None:
            raise click.UsageError("counter-jump needs an energy, such as 5kJ or -500J")
        return Action.counter_jump(gpu, energy)
    if kind == "xid":
        if value is None or not (value.isascii() and value.isdecimal()):
            raise click.UsageError("xid needs a number, such as 79")
        return Action.xid(gpu, int(value))
    form = value_form(kind)
    number = None if value is None else parse_value(kind, value)
    if value is not None and number is None:
        raise click.UsageError(f"{value!r} is not {form}" if form else f"{kind} takes no value")
    if value is None and kind in {"oob", "slow"}:
        raise click.UsageError(f"{kind} needs {form}")
    return Action.fault(gpu, kind, number)


def _mend(gpu: Target, value: str | None) -> Action:
    found = next((known for known in FAULTS if known == value), None)
    if value is not None and found is None:
        raise click.UsageError(f"{value!r} is no fault (allowed: {', '.join(FAULTS)})")
    return Action.mend(gpu, found)


@click.command(
    epilog="""\b
Examples:
  wattkeeper sim reset           as after a reboot, and nothing is planned any more
  wattkeeper sim reset 2         that GPU alone, as `nvidia-smi --gpu-reset` does
"""
)
@optional_gpu_argument
@state_option
def reset(gpu: Target | None, state: Path) -> None:
    """Makes the GPUs as new: no load, fault or plan, limits at their defaults; or resets one."""
    with opened(state) as simulation:
        if gpu is not None:
            simulation.reset_gpu(gpu)
        else:
            simulation.forget_plans()
            simulation.clear_fault("all")
            simulation.reboot()


@click.command(
    name="reload-driver",
    epilog="\b\nExamples:\n  wattkeeper sim reload-driver\n  wattkeeper sim reload-driver --after 30s --every 1m\n",
)
@when_options
@state_option
def reload_driver(state: Path, **options: Any) -> None:
    """Loads the driver anew: limits at their defaults, energy counters at 0, NVML's sessions stale."""
    with opened(state) as simulation:
        simulation.driver_reload(**when(options))


@click.command(
    epilog="""\b
Example of a file; `gpus` and `clock` may be left out, times count from now:
  gpus: {model: H100, count: 4}
  clock: real
  events:
    - {at: 0s, gpu: all, load: training}
    - {at: 10s, gpu: 1, fault: hang, for: 5s}
    - {at: 20s, gpu: 0, limit: 400W, every: 2s}
    - {on: set-limit, gpu: 2, nth: 3, fault: ignored}
    - {at: 30s, reload-driver: true}
    - {at: 40s, gpu: 3, load: bert, work: 60s}
An event does one of load (with level, work, once), fault (value), mend, limit, module-limit, counter-jump, xid,
persistence, reset-gpu, reload-driver, reboot and latency.
\b
  wattkeeper sim scenario bad-day.yaml && wattkeeper sim show --watch
"""
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Throw away GPUs that are there, and create those of the file.")
@state_option
def scenario(file: Path, replace: bool, state: Path) -> None:
    """Plans all that a YAML file says, and creates its GPUs where there are none."""
    from wattkeeper.simulator.scenario import Scenario  # reads YAML: only needed here

    with errors():
        told = Scenario.load(file)
        fresh = replace or not (state / "state").exists()
        with told.create(state, replace=replace) if fresh else Simulation.open(state) as simulation:
            if not fresh and told.gpus is not None:
                _require_as_many(simulation, told.gpus.get("gpus"), told.file)
            told.apply(simulation)
            plans = len(simulation.plans())
    click.echo(f"{file}: {len(told.events)} events; {plans} things are planned (wattkeeper sim show)")


def _require_as_many(simulation: Simulation, count: int | None, file: str) -> None:
    found = len(simulation.show().gpus)
    if count is not None and count != found:
        raise SimulatorError(f"{simulation.state} has {found} GPUs, and {file} is about {count} (mend: --replace)")
