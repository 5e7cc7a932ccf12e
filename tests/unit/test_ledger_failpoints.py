"""Killed at each of the ledger's failpoints, and begun again: every joule once, every record once."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.chaos.books import read_books, read_records

from wattkeeper.ledger.store import SqliteStore

REPO = Path(__file__).resolve().parents[2]
JOBS = 3

AGENT = """
import asyncio, sys
from pathlib import Path
from wattkeeper.agent import ledger
from wattkeeper.agent.ledger import open_ledger
from wattkeeper.model import *
from wattkeeper.protocols import Change, JobNote
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import Millijoules

ledger.COMMIT_DEADLINE_S = 60.0  # a disk that works may be slow
NOW, GPU, JOBS = 1_800_000_000.0, GpuUuid("GPU-a"), int(sys.argv[2])

async def main():
    \"\"\"Job n runs from counter 200 (n - 1) to 200 n; each has two intervals. Goes on where the ledger says.\"\"\"
    writer = open_ledger(Path(sys.argv[1]), SystemClock(), lambda: 1e9, print)
    mark = writer.kept.watermarks.get(GPU)
    for step in range(1 if mark is None else round(mark.sample.at_mono) + 1, 2 * JOBS + 1):
        key = JobKey("lab", (step + 1) // 2, "r0")
        sample = EnergySample(GPU, Millijoules(100 * step), NOW + step, float(step), "boot")
        facts = JobFacts(key, 1000, "alice", "physics", "gpu")
        ended = NOW + step if step % 2 == 0 else None
        change = Change(
            "boot", NOW + step, charges=(Charges(GPU, {key: Millijoules(100)}, at=NOW + step),),
            watermarks=(Watermark(sample, (key,)),), notes=(JobNote(facts, NOW, ended),),
            over=(key,) if ended else (),
        )
        assert await writer.commit(change)
    writer.close()

asyncio.run(main())
"""


def run(folder: Path, failpoint: str = "") -> int:
    """How an agent that charges ``JOBS`` jobs, from where the ledger ends, came to its own end."""
    environment = {**os.environ, "WATTKEEPER_FAILPOINT": failpoint}
    command = [sys.executable, "-c", AGENT, str(folder), str(JOBS)]
    return subprocess.run(command, env=environment, cwd=REPO, timeout=60, capture_output=True).returncode


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("name", ["ledger.commit", "ledger.committed", "records.appended", "records.noting"])
def test_what_a_kill_leaves_is_made_whole_at_the_next_start(tmp_path: Path, name: str, times: int) -> None:
    killed = run(tmp_path, f"{name}:{times}")
    assert killed == -signal.SIGKILL or (name.startswith("records") and times > JOBS)
    run(tmp_path, f"{name}:1")  # and once more while it comes back
    assert run(tmp_path) == 0
    books = read_books(tmp_path)
    assert books.jobs == {(number, "GPU-a"): 200 for number in range(1, JOBS + 1)}
    assert books.accounts == books.days == {("physics", "gpu"): 200 * JOBS}
    assert [(record.job_id, record.energy_mj) for record in read_records(tmp_path)] == [
        (number, 200) for number in range(1, JOBS + 1)
    ]
    with closing(SqliteStore(tmp_path / "state.db")) as store:
        assert store.unrecorded() == []


def test_without_a_failpoint_nothing_dies(tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    assert run(tmp_path, "no.such.place") == 0
