"""Whether the ledger has every millijoule that the GPUs' counters have, once."""

import random
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

from tests.bench.node import GPUS, BenchNode, progress
from tests.bench.results import Figure, Row

JOBS = 5
JOB_BOUND_PERCENT = 0.5
STEPS, STEP_S = 9, 10.0

BOOKS = """SELECT uuid, SUM(mj) FROM (
    SELECT uuid, energy_mj AS mj FROM job_energy UNION ALL
    SELECT uuid, idle_mj + unattributed_mj FROM gpu_energy) GROUP BY uuid"""
OF_JOB = "SELECT uuid, energy_mj FROM job_energy WHERE job_id = ?"


@dataclass(frozen=True)
class Truth:
    """What a job's GPUs drew while it ran, by the simulation's own books."""

    job_id: int
    energy_mj: dict[str, int]


def run_jobs(node: BenchNode, chance: random.Random) -> list[Truth]:
    """Jobs of ninety seconds of the GPUs' own time, which stands still at their hooks: their truth is exact."""
    progress(f"{node.profile}: {JOBS} jobs of {STEPS * STEP_S:g} s of the GPUs' time")
    simulation, truths = node.simulation, []
    for _ in range(JOBS):
        job = node.job()
        simulation.set_clock("manual")
        before = _truth(node)
        node.post_s("prolog", job)
        for _ in range(STEPS):
            for minor in range(GPUS):
                simulation.load(minor, chance.random())
            simulation.advance(STEP_S)
        node.post_s("epilog", job)
        after = _truth(node)
        simulation.set_clock("real")
        truths.append(Truth(job.job_id, {uuid: after[uuid] - before[uuid] for uuid in after}))
    return truths


def measure(node: BenchNode, truths: list[Truth]) -> list[Row]:
    """Ends the agent. Both rows: the jobs' energy, and the whole of the bench on this node."""
    progress(f"{node.profile}: the ledger against the counters")
    node.simulation.set_clock("manual")
    counters = _counters(node)
    time.sleep(3)  # more than two ticks: the last reading is of the counters as they now stand
    node.agent.stop()
    with closing(sqlite3.connect(node.files.state_dir / "state.db")) as db:
        books = dict(db.execute(BOOKS).fetchall())
        jobs = {truth.job_id: dict(db.execute(OF_JOB, (truth.job_id,)).fetchall()) for truth in truths}
    gained = {uuid: counters[uuid] - node.energy_at_start_mj[uuid] for uuid in counters}
    off_mj = sum(abs(books.get(uuid, 0) - gained[uuid]) for uuid in gained)
    errors = [
        abs(jobs[truth.job_id].get(uuid, 0) - mj) / mj for truth in truths for uuid, mj in truth.energy_mj.items()
    ]
    return [
        Row(
            "energy of jobs ≥ 60 s against ground truth",
            node.profile,
            (Figure("worst", 100 * max(errors), "%", JOB_BOUND_PERCENT),),
            note=f"{JOBS} jobs on {GPUS} GPUs, the sensor of an H100: its energy counter moves every 100 ms",
        ),
        Row(
            "jobs + idle + unattributed = device counter",
            node.profile,
            (Figure("off by", off_mj, "mJ", 0),),
            note=f"{sum(gained.values()) / 1e6:.1f} kJ, every job and kill of this bench",
        ),
    ]


def _truth(node: BenchNode) -> dict[str, int]:
    return {gpu.uuid: gpu.energy_mj for gpu in node.simulation.show().gpus}


def _counters(node: BenchNode) -> dict[str, int]:
    return {gpu.uuid: gpu.counter_mj for gpu in node.simulation.show().gpus}
