"""``wattkeeper sim``: creates, scripts and breaks simulated GPUs. One file for each thing that people want of them."""

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.sim.clock import clock
from wattkeeper.cli.sim.create import env, mig
from wattkeeper.cli.sim.events import fault, reload_driver, reset, scenario, set_
from wattkeeper.cli.sim.lists import models, profiles
from wattkeeper.cli.sim.loads import load
from wattkeeper.cli.sim.show import show


@click.group(
    context_settings=HELP,
    epilog="""\b
Examples:
  eval "$(wattkeeper sim env --state /tmp/gpus --model H100 --gpus 4)"
  wattkeeper sim load all training
  wattkeeper sim load 1 bert --work 60s --wait
  wattkeeper sim set 0 --limit 300W
  wattkeeper sim show --watch
  wattkeeper sim fault 2 hang --after 10s --for 5s
  wattkeeper sim scenario bad-day.yaml
After the first line every NVML client of that shell (gpustat, nvitop, your own) sees these GPUs.
""",
)
def sim() -> None:
    """Creates, scripts and breaks simulated GPUs.

    They live in a folder; no process has to run. GPUs are named by minor number (the N of /dev/nvidiaN), or `all`.
    """


for command in (env, set_, load, fault, scenario, show, reset, reload_driver, clock, mig, models, profiles):
    sim.add_command(command)
