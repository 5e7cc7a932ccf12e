"""How much the ledger grows, and how long a report of a year of it takes."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.bench.node import BenchNode, Job, progress
from tests.bench.results import Figure, Row
from tests.chaos.workload import Workload
from tests.unit.ledger_of_many import make_ledger, report_of_all
from wattkeeper.ledger.report import FIELDS

JOBS = 1_000
PER = 10_000
ROWS = 1_000_000
REPORT_BOUND_S = 2.0


def measure(root: Path, chance: random.Random) -> list[Row]:
    """Both rows."""
    return [measure_growth(root, chance), measure_report(root)]


def measure_growth(root: Path, chance: random.Random) -> Row:
    """The agent's files before and after jobs that came and went."""
    progress(f"{JOBS} jobs into the ledger")
    node = BenchNode(root, "none", name="growth")
    node.simulation.set_clock("manual")

    def tell(event: str, job: Job) -> bool:
        node.post_s(event, job)
        return True

    def sizes() -> tuple[int, int]:
        """Bytes of the ledger, packed, and of the records; the agent must be down."""
        state = node.files.state_dir
        with closing(sqlite3.connect(state / "state.db")) as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return (state / "state.db").stat().st_size, sum(path.stat().st_size for path in state.glob("records/*"))

    try:
        node.agent.stop()
        before = sizes()
        node.agent.start()
        workload = Workload(node, chance, JOBS)
        while not workload.over:
            workload.step(tell)
        node.agent.stop()
        after = sizes()
    finally:
        node.close()
    ledger, records = ((late - early) * PER / JOBS / 2**20 for early, late in zip(before, after, strict=True))
    gpus = sum(len(run.job.minors) for run in workload.done) / JOBS
    return Row(
        f"growth of the ledger per {PER:,} jobs",
        "none",
        (Figure("state.db", ledger, "MiB"), Figure("records", records, "MiB")),
        note=f"from {JOBS:,} jobs of {gpus:.1f} GPUs each",
    )


def measure_report(root: Path) -> Row:
    """The slowest of the reports by one field and by all of them, over every day."""
    progress(f"a report of {ROWS:,} jobs")
    path = root / "report.db"
    make_ledger(path, ROWS)
    try:
        times: dict[str, float] = {field: report_of_all(path, field)[1] for field in FIELDS}
        times["all four"] = report_of_all(path, *FIELDS)[1]
    finally:
        path.unlink()
    slowest = max(times, key=lambda field: times[field])
    return Row(
        f"report over {ROWS:,} jobs",
        "-",
        (Figure("slowest", times[slowest], "s", REPORT_BOUND_S),),
        note=f"by {slowest}; " + ", ".join(f"by {field} {took_s:.2f} s" for field, took_s in times.items()),
    )
