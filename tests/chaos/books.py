"""What the ledger's own file says, read when the agent has ended."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

OF_JOBS = "SELECT job_id, uuid, energy_mj FROM job_energy"
OF_NOBODY = "SELECT uuid, idle_mj, unattributed_mj FROM gpu_energy"


@dataclass(frozen=True)
class Books:
    """Energy in millijoules: of each job on each GPU (by UUID), of GPUs that nobody held, and of nobody."""

    jobs: dict[tuple[int, str], int]
    idle: dict[str, int]
    unattributed: dict[str, int]

    def of_gpu(self, uuid: str) -> int:
        """Jobs + idle + unattributed."""
        jobs = sum(energy for (_, gpu), energy in self.jobs.items() if gpu == uuid)
        return jobs + self.idle.get(uuid, 0) + self.unattributed.get(uuid, 0)

    def of_job(self, job_id: int) -> dict[str, int]:
        return {gpu: energy for (job, gpu), energy in self.jobs.items() if job == job_id}


def read_books(state_dir: Path) -> Books:
    with closing(sqlite3.connect(f"file:{state_dir / 'state.db'}?mode=ro", uri=True)) as db:
        jobs: dict[tuple[int, str], int] = {}
        for job_id, uuid, energy_mj in db.execute(OF_JOBS):  # a job that was requeued has several runs
            jobs[job_id, uuid] = jobs.get((job_id, uuid), 0) + energy_mj
        nobodys = db.execute(OF_NOBODY).fetchall()
    return Books(
        jobs, {uuid: idle for uuid, idle, _ in nobodys}, {uuid: unattributed for uuid, _, unattributed in nobodys}
    )


def read_records(state_dir: Path) -> list[dict[str, object]]:
    """Every end-of-job record of the node, in the order in which they were written."""
    files = sorted((state_dir / "records").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]
