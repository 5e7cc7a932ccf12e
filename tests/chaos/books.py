"""What the ledger's own file says, read when the agent has ended."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

OF_JOBS = "SELECT job_id, uuid, energy_mj FROM job_energy"
OF_ACCOUNTS = "SELECT account, partition, energy_mj FROM accounts"
OF_DAYS = "SELECT account, partition, SUM(energy_mj) FROM days GROUP BY account, partition"
OF_NOBODY = "SELECT uuid, idle_mj, unattributed_mj FROM gpu_energy"


@dataclass(frozen=True)
class Books:
    """Energy in millijoules: of each job on each GPU (by UUID), of GPUs that nobody held, and of nobody.

    ``accounts`` and ``days`` are sums by account and partition: the totals of all time, and those of all days.
    """

    jobs: dict[tuple[int, str], int]
    accounts: dict[tuple[str, str], int]
    days: dict[tuple[str, str], int]
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
        accounts, days = (
            {(account, partition): energy_mj for account, partition, energy_mj in db.execute(query)}
            for query in (OF_ACCOUNTS, OF_DAYS)
        )
        nobodys = db.execute(OF_NOBODY).fetchall()
    idle, unattributed = ({row[0]: row[column] for row in nobodys} for column in (1, 2))
    return Books(jobs, accounts, days, idle, unattributed)


@dataclass(frozen=True)
class Record:
    """Of an end-of-job record what sums are made of; ``energy_mj`` None where the run was never charged."""

    job_id: int
    account: str | None
    partition: str | None
    seconds: float
    energy_mj: int | None


def read_records(state_dir: Path) -> list[Record]:
    """Every end-of-job record of a node, in the order in which they were written."""
    files = sorted((state_dir / "records").glob("*.jsonl"))
    whole = [path.read_text().rpartition("\n")[0] for path in files]  # an agent may be writing the last line
    lines = [json.loads(line) for text in whole for line in text.splitlines()]
    return [Record(**{field.name: line[field.name] for field in fields(Record)}) for line in lines]
