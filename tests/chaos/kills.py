"""The agent killed at every place that its code names, while jobs come and go."""

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.bench.node import BenchNode, Job
from tests.chaos.workload import Workload
from tests.lab.spec import REPO
from wattkeeper.system.failpoint import VARIABLE

CODE = REPO / "daemon" / "wattkeeper"
PLACE = re.compile(r"\bfailpoint\(\"([\w.-]+)\"\)")
LONGEST_LIFE_S = 3.0
"""From READY on: ten ticks and more."""


def places() -> list[str]:
    """Every place in the code at which the agent can be told to die."""
    return sorted({name for path in CODE.rglob("*.py") for name in PLACE.findall(path.read_text())})


@dataclass
class Deaths:
    """How often the agent died, by place; ``missed`` are lives in which it did not come there (so often)."""

    at: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        died = ", ".join(f"{name} {count}" for name, count in sorted(self.at.items()))
        missed = ", ".join(f"{name} {count}" for name, count in sorted(self.missed.items()))
        return f"{self.at.total()} deaths ({died}); not come to: {missed or 'none'}"


class Hooks:
    """The shipped hook files, as slurmd runs them: an event that no agent takes waits in the spool."""

    def __init__(self, node: BenchNode) -> None:
        self._node = node
        self._spool = node.files.run_dir / "spool"

    def __call__(self, event: str, job: Job) -> bool:
        before = self._waiting()
        status = self._node.hook(event, job, command="/bin/false").wait()
        assert status == 0, f"{event} of job {job.job_id}: exit status {status}"
        return not self._waiting() - before

    def _waiting(self) -> set[str]:
        return {path.name for path in self._spool.glob("[!.]*")}


class Killer:
    """Kills a node's agent, which must be down, so often; ``jobs`` come and go meanwhile."""

    def __init__(self, node: BenchNode, chance: Random, jobs: int, kills: int) -> None:
        self.workload = Workload(node, chance, jobs)
        self.deaths = Deaths()
        self._node = node
        self._chance = chance
        self._kills = kills
        self._tell = Hooks(node)
        self._events = 2 * jobs // kills  # a life, and the time before it

    def run(self) -> None:
        """All of it; the agent runs at the end."""
        names: list[str] = []
        while self.deaths.at.total() < self._kills:
            assert not self.workload.over, f"too few jobs for so many kills: {self.deaths}"
            names = names or self._chance.sample(places(), len(places()))
            absent = self._chance.randint(1, min(3, self._events - 1))
            for _ in range(absent):
                self._step()
            self._live(names.pop(), self._chance.randint(1, 3), self._events - absent)
        self._node.agent.start()
        while not self.workload.over:
            self._step()

    def _step(self) -> None:
        if not self.workload.over:
            self.workload.step(self._tell)

    def _live(self, name: str, nth: int, events: int) -> None:
        """One life of the agent, until it comes to the place for the nth time."""
        agent = self._node.agent
        agent.start(wait=False, env={VARIABLE: f"{name}:{nth}"})
        while agent.alive and not agent.notify.seen("READY", "1"):
            time.sleep(0.005)
        end = time.monotonic() + LONGEST_LIFE_S
        while agent.alive and time.monotonic() < end:
            if events:
                events -= 1
                self._step()
            else:
                time.sleep(0.01)
        if agent.alive:
            self.deaths.missed[name] += 1
        else:
            self.deaths.at[name] += 1
        agent.kill()
