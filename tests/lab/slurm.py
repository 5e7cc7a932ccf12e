"""Slurm's own commands against the lab."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.config import user
from tests.lab.processes import LabError, run
from tests.lab.waiting import PATIENCE

ENDED = frozenset({"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"})

FROM_NODES = frozenset(
    {
        "MESSAGE_NODE_REGISTRATION_STATUS",
        "MESSAGE_EPILOG_COMPLETE",
        "REQUEST_COMPLETE_PROLOG",
        "REQUEST_COMPLETE_BATCH_SCRIPT",
        "REQUEST_STEP_COMPLETE",
    }
)
"""What slurmd and its steps say by themselves, of the node and of its jobs."""
UNASKED = FROM_NODES | {"REQUEST_STATS_INFO"}


@dataclass(frozen=True)
class Rpcs:
    """slurmctld's own count of the messages it got."""

    by_type: dict[str, int]
    by_user: dict[str, int]

    def __sub__(self, earlier: "Rpcs") -> "Rpcs":
        """What came in between, without zeros."""
        return Rpcs(_difference(self.by_type, earlier.by_type), _difference(self.by_user, earlier.by_user))

    @property
    def asked(self) -> dict[str, int]:
        """By type, without what a count cannot be sure of.

        Nodes report whenever they come to it. slurmctld counts a message when it has answered it, perhaps a while
        later: sdiag's own may be in its next count or in the one after.
        """
        return {name: count for name, count in self.by_type.items() if name not in UNASKED}


def _difference(late: dict[str, int], early: dict[str, int]) -> dict[str, int]:
    return {key: value - early.get(key, 0) for key, value in late.items() if value != early.get(key, 0)}


def parse_sdiag(text: str) -> Rpcs:
    tables: list[dict[str, int]] = [{}, {}]
    current: dict[str, int] | None = None
    for line in text.splitlines():
        if line.startswith("Remote Procedure Call statistics by message type"):
            current = tables[0]
        elif line.startswith("Remote Procedure Call statistics by user"):
            current = tables[1]
        elif not line.strip() or line.startswith("Pending"):
            current = None
        elif current is not None and (row := re.match(r"\s*(\S+)\s*\(.*?\)\s*count:(\d+)", line)):
            current[row[1]] = int(row[2])
    return Rpcs(tables[0], tables[1])


class Client:
    def __init__(self, env: Mapping[str, str], out: Path) -> None:
        self.env = dict(env)
        self._out = out

    def _run(self, *argv: str, env: Mapping[str, str] | None = None, stdin: str | None = None, **more: bool) -> str:
        return run(argv, {**self.env, **(env or {})}, stdin=stdin, **more).stdout

    def sbatch(self, script: str, *options: str, env: Mapping[str, str] | None = None) -> int:
        """Submits a script (its text, with or without the first line) and returns the job's id.

        Its output is `output(job)`.
        """
        text = script if script.startswith("#!") else f"#!/bin/sh\n{script}\n"
        output = f"--output={self._out}/%j.out"
        done = self._run("sbatch", "--parsable", output, "--chdir=/tmp", *options, env=env, stdin=text)
        return int(done.strip().partition(";")[0])

    def sbatch_het(self, script: str, *components: Sequence[str]) -> int:
        """Submits a heterogeneous job and returns the id of its first component."""
        words: list[str] = []
        for component in components:
            words += [*([":"] if words else []), *component]
        return self.sbatch(script, *words)

    def srun(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """Runs a step to its end and returns what it wrote."""
        return self._run("srun", "--chdir=/tmp", *argv, env=env)

    def scontrol(self, *argv: str) -> str:
        return self._run("scontrol", *argv)

    def squeue(self, *argv: str) -> str:
        return self._run("squeue", *argv)

    def scancel(self, *jobs: int | str) -> None:
        self._run("scancel", *map(str, jobs))

    def requeue(self, job: int) -> None:
        self._run("scontrol", "requeue", str(job))

    def output(self, job: int | str) -> str:
        path = self._out / f"{job}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def job(self, job: int) -> dict[str, str]:
        """slurmctld's own words about a job; fields whose value holds a blank are cut at it."""
        text = self._run("scontrol", "-o", "-d", "show", "job", str(job))
        return dict(word.partition("=")[::2] for word in text.split() if "=" in word)

    def state(self, job: int) -> str:
        return self.job(job)["JobState"]

    def wait_state(self, job: int, *states: str, bound_s: float = 20) -> str:
        start = time.monotonic()
        while (state := self.state(job)) not in states:
            if time.monotonic() - start > PATIENCE * bound_s:
                raise LabError(f"job {job} is {state}, not {' or '.join(states)}: {self.job(job)}")
            time.sleep(0.05)
        return state

    def wait_running(self, job: int, bound_s: float = 20) -> None:
        self.wait_state(job, "RUNNING", bound_s=bound_s)

    def wait_done(self, job: int, bound_s: float = 20) -> str:
        """Waits until the job has ended and its Epilogs have run; returns its final state."""
        return self.wait_state(job, *ENDED, bound_s=bound_s)

    def cancel_all(self) -> None:
        """Cancels every job and waits until every node is idle again."""
        self._run("scancel", "--user", user(), check=False)
        start = time.monotonic()
        while self.squeue("-h").strip():
            if time.monotonic() - start > PATIENCE * 30:
                raise LabError(f"jobs that will not end:\n{self.squeue()}")
            time.sleep(0.05)

    def node_states(self) -> dict[str, str]:
        """`{node: state}` as sinfo has it; empty while slurmctld does not answer."""
        text = self._run("sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %T", check=False)
        return dict(line.split()[:2] for line in text.splitlines())

    def slurmctld_answers(self) -> bool:
        return "UP" in self._run("scontrol", "ping", check=False)

    def sdiag(self) -> Rpcs:
        """slurmctld's count of messages by type and user; asking adds one REQUEST_STATS_INFO."""
        return parse_sdiag(self._run("sdiag"))
