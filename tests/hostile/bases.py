"""Valid states that damage starts from, each with other parts of the file in use."""

import os
from pathlib import Path

from wattkeeper.simulator import Simulation
from wattkeeper.simulator.structures import CAction, CLoad, CSegment, Kind
from wattkeeper.units import Milliwatts

BASES = ("idle", "busy", "planned", "trace")


def make_base(name: str, folder: Path) -> bytes:
    """The file of a base. It has one GPU in use besides an idle one, so that reading it is quick."""
    with Simulation.create(folder, model="A100-SXM4-40GB", gpus=2, replace=True, seed="base", clock="manual") as sim:
        sim.advance(100)
        if name != "idle":
            _act(sim, CAction(gpu=0, kind=Kind.START_LOAD, which=6, level_bp=9_500, value=0))
            sim.set_mig(1, ["3g.20gb", "2g.10gb"])
            sim.set_limit(0, Milliwatts(250_000))
            _act(sim, CAction(gpu=0, kind=Kind.RAISE_XID, value=79))
        if name == "planned":
            soon_ns = 100_800_000_000  # within what the worker lets pass
            for place in range(64):
                kind = place % 12
                value = 300_000 if kind < 2 else 0 if kind == Kind.SET_LATENCY else 1
                every = (0, 10**9, 10**8)[place % 3]
                if kind not in (Kind.SET_MODULE_LIMIT, Kind.BREAK):
                    _act(sim, CAction(at_ns=soon_ns, every_ns=every, gpu=0, kind=kind, level_bp=9_000, value=value))
        if name == "trace":
            segments = (CSegment * 1024)(*(CSegment(1_000 + place, place * 9, place) for place in range(1024)))
            load = CLoad(profile=b"trace", goal_ns=0, once=0, count=1024)
            assert sim._library.wk_sim_set_load(sim._handle, 0, load, segments) == 0
        sim.advance(0.37)
    return (Path(os.fspath(folder)) / "state").read_bytes()


def _act(sim: Simulation, action: CAction) -> None:
    assert sim._library.wk_sim_act(sim._handle, action) == 0
