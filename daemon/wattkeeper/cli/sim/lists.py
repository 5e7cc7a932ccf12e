"""``wattkeeper sim models`` and ``profiles``: what there is to choose from."""

import dataclasses

import click

from wattkeeper.cli.output import Column, print_json, print_table
from wattkeeper.cli.sim.params import errors
from wattkeeper.simulator import profiles as profile_names
from wattkeeper.simulator import shipped_models
from wattkeeper.units import Milliwatts, format_power

_COLUMNS = (
    *(Column("model"), Column("also"), Column("name")),
    *(Column("limits", right=True), Column("default", right=True), Column("idle", right=True)),
    *(Column("memory", right=True), Column("MIG", right=True), Column("driver's sensor", right=True)),
)
_PROFILES = {
    "steady": "one power, all the time; `load 0 75%` is this",
    "idle": "nothing runs",
    "resnet50": "training, as Zeus measured it on a V100",
    "bert": "likewise",
    "deepspeech2": "likewise: half of the time hardly computing",
    "ncf": "likewise: mostly waiting for memory and host",
    "training": "three quarters of the time computing, the rest exchanging gradients",
    "memory-bound": "the clock hardly matters to it",
    "inference": "requests come in bursts",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the data, in the units of the fields' names.")
def models(as_json: bool) -> None:
    """Lists the models of GPU that can be simulated.

    `--model` takes a file like the shipped models.yaml too, which names the source of each figure.
    """
    with errors():
        known = list(shipped_models().values())
    if as_json:
        print_json([{**dataclasses.asdict(model), "lacks": int(model.lacks)} for model in known])
        return
    rows = [
        (
            model.key,
            ", ".join(model.aliases),
            model.name,
            f"{model.min_mw // 1000} to {format_power(Milliwatts(model.max_mw))}",
            format_power(Milliwatts(model.default_mw)),
            format_power(Milliwatts(model.idle_mw)),
            f"{model.memory_mib / 1024:.0f} GiB",
            str(model.mig_slices or "-"),
            f"{model.power_update_ms} ms" if model.power_update_ms else "always",
        )
        for model in known
    ]
    print_table(_COLUMNS, rows)


@click.command()
def profiles() -> None:
    """Lists the loads that can be put on a GPU by name."""
    with errors():
        names = profile_names()
    print_table((Column("profile"), Column("what it is")), [(name, _PROFILES.get(name, "")) for name in names])
