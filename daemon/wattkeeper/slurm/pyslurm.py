"""One job as pyslurm tells it, which must be built for this very release of Slurm.

Two generations of its interface are known, see ``pyslurm_child.py``. 1 ms a look-up once its process runs.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from wattkeeper.model import JobText
from wattkeeper.protocols import Looked, LookupFailedError, LookupProblem
from wattkeeper.slurm.programs import Programs
from wattkeeper.system.answerer import Answerer
from wattkeeper.text import printable

log = logging.getLogger("wattkeeper.slurm")

START_S = 5.0
_CHILD = Path(__file__).with_name("pyslurm_child.py")


class Pyslurm:
    """``JobLookup`` by pyslurm, in a process of its own: see ``open``."""

    def __init__(self, child: Answerer) -> None:
        self._child = child

    @classmethod
    async def open(cls, programs: Programs, python: str | None = None) -> "Pyslurm | None":
        """Import pyslurm and compare it with this node's Slurm; None, and logged, where it is absent or another's."""
        child = Answerer([python or sys.executable, "-P", str(_CHILD)], programs.environment)
        greeting = _json_of(await child.ask("", START_S) or "")
        release = await programs.release(START_S)
        version = str(greeting.get("version", ""))
        if release is not None and _release_of(version) == release:
            return cls(child)
        await child.close()
        if version and release is not None:
            why = f"it is for Slurm {version}, and this node has {release[0]}.{release[1]:02d}"
        else:
            why = printable(str(greeting.get("error", "it could not be started")), 120)
        log.info("pyslurm is not used: %s", why)
        return None

    async def look_up(self, job_id: int, deadline_s: float) -> Looked:
        """What pyslurm says of a job. Raises LookupFailedError."""
        answer = await self._child.ask(str(job_id), deadline_s)
        if answer is None:
            raise LookupFailedError(LookupProblem.TIMEOUT, f"job {job_id}: pyslurm had no answer in {deadline_s:g} s")
        return parse_answer(job_id, answer)

    async def close(self) -> None:
        """End its process."""
        await self._child.close()


def parse_answer(job_id: int, answer: str) -> Looked:
    """The job in a line of the child's, which may be anything. Raises LookupFailedError."""
    if not answer:
        raise LookupFailedError(LookupProblem.REFUSED, f"job {job_id}: the process with pyslurm ended")
    found = _json_of(answer)
    if "error" in found:
        said = printable(str(found["error"]), 120)
        kind = LookupProblem.NOT_FOUND if "Invalid job id" in said else LookupProblem.REFUSED
        raise LookupFailedError(kind, f"job {job_id}: pyslurm said: {said}")
    jobs = found.get("jobs")
    listed = jobs if isinstance(jobs, list) else []
    mine = [job for job in listed if isinstance(job, dict) and job.get("job_id") == job_id]
    if len(mine) != 1 or not isinstance(mine[0].get("user_id"), int):
        raise LookupFailedError(
            LookupProblem.WRONG, f"job {job_id}: pyslurm answered of another: {printable(answer, 80)}"
        )
    job = mine[0]
    return Looked(job_id, job["user_id"], _text(job, "qos"), _text(job, "name"), _text(job, "account"))


def _text(job: dict[str, Any], name: str) -> JobText:
    value = job.get(name)
    return value if isinstance(value, str) and value else None


def _json_of(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _release_of(version: str) -> tuple[int, int] | None:
    """(22, 5) of 22.5.3, as pyslurm counts."""
    words = version.split(".")
    return (int(words[0]), int(words[1])) if len(words) > 1 and all(w.isdecimal() for w in words[:2]) else None
