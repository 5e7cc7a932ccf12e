"""What jobs are billed against what their GPUs truly drew, through the sensors of each model of card.

The GPUs' time is the real one while jobs run, and stands still at their hooks: a job's truth is exact.
"""

import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.bench.node import GPUS, BenchNode, Job, progress
from tests.bench.results import Figure, Row
from wattkeeper.simulator import find_model

MODELS = ("H100", "A100", "V100")
LONG_S, LONG_STEPS = 61.0, 10
SHORT_S, SHORT_ROUNDS = 2.0, 6
PAUSE_S = 0.2
"""For so long a GPU is nobody's between two jobs, as Slurm leaves it at least. Jobs that touch would share what the
card's counter shows a step late, by the power of the one before."""
LONG_BOUND_PERCENT, SHORT_BOUND_PERCENT = 0.5, 15.0
OF_JOB = "SELECT SUM(energy_mj) FROM job_energy WHERE job_id = ?"


@dataclass(frozen=True)
class Truth:
    """A job of one GPU, and the energy that it drew while the job held it."""

    job: Job
    energy_mj: int


@dataclass(frozen=True)
class Cards:
    """A node of one model. ``step_s``: the card's counter moves so often; ``peak_mw``: the most that it draws."""

    model: str
    node: BenchNode
    step_s: float
    peak_mw: int


def measure(root: Path, chance: random.Random) -> list[Row]:
    """Two rows for each model; their nodes work at the same time."""
    cards: list[Cards] = []
    try:
        for model in MODELS:
            node = BenchNode(root, "driver", model=model, name=f"acc-{model}")
            found = find_model(model)
            cards.append(Cards(model, node, found.energy_update_ms / 1000, found.peak_mw))
        progress(f"{', '.join(MODELS)}: jobs of {LONG_S:g} s, one on each GPU")
        long = _run(cards, chance, LONG_S, LONG_STEPS)
        progress(f"{', '.join(MODELS)}: {SHORT_ROUNDS} rounds of jobs of {SHORT_S:g} s")
        short: dict[str, list[Truth]] = {model: [] for model in MODELS}
        for _ in range(SHORT_ROUNDS):
            for model, truths in _run(cards, chance, SHORT_S, 1).items():
                short[model] += truths
        return [row for one in cards for row in _rows(one, long[one.model], short[one.model])]
    finally:
        for one in cards:
            one.node.close()


def _run(cards: Sequence[Cards], chance: random.Random, seconds: float, steps: int) -> dict[str, list[Truth]]:
    """A job on each GPU for so long, under a load that changes at each step."""
    time.sleep(PAUSE_S)
    for one in cards:
        one.node.simulation.set_clock("manual")
    jobs = {one.model: [one.node.job([minor]) for minor in range(GPUS)] for one in cards}
    before = {one.model: _truth(one.node) for one in cards}
    for one in cards:
        for job in jobs[one.model]:
            one.node.post_s("prolog", job)
        one.node.simulation.set_clock("real")
    start = time.monotonic()
    for step in range(steps):
        for one in cards:
            for minor in range(GPUS):
                one.node.simulation.load(minor, chance.random())
        time.sleep(max(0.0, start + seconds * (step + 1) / steps - time.monotonic()))
    truths = {}
    for one in cards:
        one.node.simulation.set_clock("manual")
        after = _truth(one.node)
        truths[one.model] = [
            Truth(job, after[minor] - before[one.model][minor]) for minor, job in enumerate(jobs[one.model])
        ]
        for job in jobs[one.model]:
            one.node.post_s("epilog", job)
        one.node.simulation.load("all", 0)
        one.node.simulation.set_clock("real")
    return truths


def _truth(node: BenchNode) -> list[int]:
    return [gpu.energy_mj for gpu in node.simulation.show().gpus]


def _rows(cards: Cards, long: Sequence[Truth], short: Sequence[Truth]) -> Iterator[Row]:
    node = cards.node
    node.agent.stop()
    with closing(sqlite3.connect(node.files.state_dir / "state.db")) as db:
        billed = {
            truth.job.job_id: db.execute(OF_JOB, (truth.job.job_id,)).fetchone()[0] or 0 for truth in [*long, *short]
        }
    step_mj = cards.step_s * cards.peak_mw
    beyond = [max(0.0, abs(billed[truth.job.job_id] - truth.energy_mj) - step_mj) / truth.energy_mj for truth in long]
    off = [abs(billed[truth.job.job_id] - truth.energy_mj) / truth.energy_mj for truth in long]
    figures = (
        Figure("worst, less one sensor step", 100 * max(beyond), "%", LONG_BOUND_PERCENT),
        Figure("worst", 100 * max(off), "%"),
    )
    note = f"{len(long)} jobs of {LONG_S:g} s; the card's counter moves every {cards.step_s * 1000:g} ms"
    yield Row(f"{cards.model}: energy of jobs ≥ 60 s against ground truth", node.profile, figures, note=note)
    off = [abs(billed[truth.job.job_id] - truth.energy_mj) / truth.energy_mj for truth in short]
    figures = (
        Figure("worst", 100 * max(off), "%", SHORT_BOUND_PERCENT),
        Figure("mean", 100 * sum(off) / len(off), "%"),
    )
    yield Row(
        f"{cards.model}: energy of jobs of {SHORT_S:g} s against ground truth", node.profile, figures,
        note=f"{len(short)} jobs, {PAUSE_S:g} s apart",
    )  # fmt: skip
