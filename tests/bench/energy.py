"""Whether the ledger has every millijoule that the GPUs' counters have, once."""

import sqlite3
import time
from contextlib import closing

from tests.bench.node import BenchNode, progress
from tests.bench.results import Figure, Row

BOOKS = """SELECT uuid, SUM(mj) FROM (
    SELECT uuid, energy_mj AS mj FROM job_energy UNION ALL
    SELECT uuid, idle_mj + unattributed_mj FROM gpu_energy) GROUP BY uuid"""


def measure(node: BenchNode) -> Row:
    """Ends the agent: the whole of the bench on this node, every job and kill of it."""
    progress(f"{node.profile}: the ledger against the counters")
    node.simulation.set_clock("manual")
    counters = {gpu.uuid: gpu.counter_mj for gpu in node.simulation.show().gpus}
    time.sleep(3)  # more than two ticks: the last reading is of the counters as they now stand
    node.agent.stop()
    with closing(sqlite3.connect(node.files.state_dir / "state.db")) as db:
        books = dict(db.execute(BOOKS).fetchall())
    gained = {uuid: counters[uuid] - node.energy_at_start_mj[uuid] for uuid in counters}
    off_mj = sum(abs(books.get(uuid, 0) - gained[uuid]) for uuid in gained)
    return Row(
        "jobs + idle + unattributed = device counter",
        node.profile,
        (Figure("off by", off_mj, "mJ", 0),),
        note=f"{sum(gained.values()) / 1e6:.1f} kJ, every job and kill of this bench",
    )
