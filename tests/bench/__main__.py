"""`python -m tests.bench [--json] [--seed N]`: prints the numbers to hold, exits 1 beyond them."""

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import accuracy, calls, energy, latency, mending, rules, storage, upkeep
from tests.bench.node import GPUS, BenchNode
from tests.bench.peers.beside import NodeExporter
from tests.bench.results import Row, exit_status
from tests.bench.table import print_json, print_table
from tests.lab.processes import Keeper, LabError

RPCS = Row(
    "slurmctld RPCs in steady state (0; at most 1 per job start)",
    "-",
    note="needs a real slurmctld: the e2e tests hold it, by sdiag",
)


def measure(root: Path, chance: random.Random) -> list[Row]:
    """Every row, on one node with the driver's latency and one without."""
    nodes: list[BenchNode] = []
    exporter = NodeExporter(root)
    try:
        nodes.append(BenchNode(root, "driver"))
        nodes.append(BenchNode(root, "none"))
        driver = nodes[0]
        rows = [row for node in nodes for row in latency.measure(node, root)]
        kills = mending.measure_kills(driver, chance)
        jobs = {}
        for node in nodes:
            node.agent.restart()  # the agent forgets the jobs that have ended: sixteen are to show, no more
            upkeep.fill(node, 16 - GPUS)
            jobs[node.profile] = upkeep.occupy(node)
        rows += [
            upkeep.measure_quiet(node, [other for other in nodes if other is not node], exporter) for node in nodes
        ]
        for node in nodes:
            for job in jobs[node.profile]:
                node.post_s("epilog", job)
            upkeep.fill(node, 64 - 16 - GPUS)
            jobs[node.profile] = upkeep.occupy(node)
            rows += [upkeep.measure_ticks(node), upkeep.measure_scrapes(node, exporter)]
        rows += [mending.measure_drift(driver, jobs["driver"], chance), kills]
        rows += [energy.measure(node) for node in nodes]
        rows += accuracy.measure(root, chance)
        return [*rows, *storage.measure(root, chance), *calls.measure(root), *rules.measure(root), RPCS]
    finally:
        for node in nodes:
            node.close()
        exporter.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of loads, kills and foreign writes")  # noqa: S311
    words = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="wk-bench-", dir="/tmp")).resolve()
    keeper = Keeper(root)
    start = time.monotonic()
    try:
        rows = measure(root, random.Random(words.seed))  # noqa: S311
    except (LabError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    finally:
        keeper.finish()
    load = os.getloadavg()[0]
    machine = f"{os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}, seed {words.seed}"
    (print_json if words.json else print_table)(rows, machine, time.monotonic() - start)
    return exit_status(rows)


if __name__ == "__main__":
    sys.exit(main())
