"""A Slurm in memory for look-ups: jobs that are submitted, and a slurmctld that hangs or is gone."""

import asyncio
from itertools import count

from wattkeeper.protocols import Looked, LookupFailedError, LookupProblem


class FakeLookup:
    """``JobLookup``. ``asked``: the job ids it was asked for, in order."""

    def __init__(self) -> None:
        self.jobs: dict[int, Looked] = {}
        self.asked: list[int] = []
        self.problem: LookupProblem | None = None
        self.answers_of: int | None = None  # whatever is asked, it tells of this job
        self.mended = asyncio.Event()
        self.closed = False
        self._ids = count(1)

    def add(self, qos: str | None = "normal", name: str = "train", uid: int = 0, job_id: int | None = None) -> int:
        """Submits a job and returns its id."""
        job_id = job_id or next(self._ids)
        self.jobs[job_id] = Looked(job_id, uid, qos, name, "ml")
        return job_id

    def break_down(self, problem: LookupProblem) -> None:
        """From now on there is no answer (TIMEOUT), or a bad one."""
        self.problem = problem
        self.mended = asyncio.Event()

    def mend(self) -> None:
        """All is well again."""
        self.problem = None
        self.mended.set()

    async def look_up(self, job_id: int, deadline_s: float) -> Looked:
        self.asked.append(job_id)
        if self.problem is LookupProblem.TIMEOUT:
            try:
                async with asyncio.timeout(deadline_s):
                    await self.mended.wait()
            except TimeoutError:
                raise LookupFailedError(LookupProblem.TIMEOUT, f"job {job_id}: no answer") from None
        if self.problem is not None:
            raise LookupFailedError(self.problem, f"job {job_id}: {self.problem}")
        found = self.jobs.get(self.answers_of or job_id)
        if found is None:
            raise LookupFailedError(LookupProblem.NOT_FOUND, f"job {job_id}: no such job")
        return found

    async def close(self) -> None:
        self.closed = True
