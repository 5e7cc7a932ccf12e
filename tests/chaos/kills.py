"""The agent and its actuator killed at every place that their code names, while jobs come and go."""

import re
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.bench.node import BenchNode, Job
from tests.chaos.workload import Workload
from tests.lab.processes import Daemon
from tests.lab.spec import REPO
from tests.lab.waiting import wait_until
from wattkeeper.system.failpoint import VARIABLE

CODE = REPO / "daemon" / "wattkeeper"
PRIVILEGED = CODE / "privileged"
PLACE = re.compile(r"\bfailpoint\(\"([\w.-]+)\"\)")
LONGEST_LIFE_S = 3.0
"""From READY on: ten ticks and more."""


RESTART_S = 0.5
"""RestartSec= of wattkeeper-actuator.service."""

RIGHT_S = 2.0
"""So soon after either process is back the limits are right."""

TOLD_EVERY = 50
"""After so many deaths it is said how far we are."""

CHECKED = 1 / 3
"""Of the agent's deaths: so many are followed by a life in which only that is looked at."""


def places() -> list[str]:
    """Every place in the code at which the agent, or its actuator, can be told to die."""
    return sorted({name for path in CODE.rglob("*.py") for name in PLACE.findall(path.read_text())})


def of_the_actuator() -> list[str]:
    """Those at which it is the actuator that dies."""
    return sorted({name for path in PRIVILEGED.rglob("*.py") for name in PLACE.findall(path.read_text())})


@dataclass
class Deaths:
    """How often one of them died, by place; ``missed`` are lives in which it did not come there (so often).

    ``slowest_s``: the longest that limits took to be right when both were there again.
    """

    at: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    def __str__(self) -> str:
        died = ", ".join(f"{name} {count}" for name, count in sorted(self.at.items()))
        missed = ", ".join(f"{name} {count}" for name, count in sorted(self.missed.items()))
        right = f"; limits right after {self.slowest_s:.2f} s at most" if self.at else ""
        return f"{self.at.total()} deaths ({died}); not come to: {missed or 'none'}{right}"


class Hooks:
    """The shipped hook files, as slurmd runs them: an event that no agent takes waits in the spool.

    ``late``: jobs of which an agent that was there heard too late, because its actuator was not, or took longer than
    a hook waits.
    """

    def __init__(self, node: BenchNode) -> None:
        self.late: set[int] = set()
        self._node = node
        self._spool = node.files.run_dir / "spool"

    def __call__(self, event: str, job: Job) -> bool:
        before = self._waiting()
        status = self._node.hook(event, job, command="/bin/false").wait()
        assert status == 0, f"{event} of job {job.job_id}: exit status {status}"
        answered = not self._waiting() - before and self._took_effect(event, job)
        if not answered and self._node.agent.alive:
            self.late.add(job.job_id)
        return answered

    def _took_effect(self, event: str, job: Job) -> bool:
        """False where limits are not right yet although both are there. Then it waits for them, or for a death."""
        if not self._slow(event, job):
            return True
        wait_until(lambda: not self._slow(event, job), RIGHT_S, f"{event} of job {job.job_id} takes effect")
        return False

    def _slow(self, event: str, job: Job) -> bool:
        agent = self._node.agent
        return agent.alive and agent.actuator.daemon.alive and not self._node.right(event, job)

    def _waiting(self) -> set[str]:
        return {path.name for path in self._spool.glob("[!.]*")}


class Killer:
    """Kills a node's agent, which must be down, or its actuator, so often; ``jobs`` come and go meanwhile."""

    def __init__(self, node: BenchNode, chance: Random, jobs: int, kills: int) -> None:
        self.workload = Workload(node, chance, jobs)
        self.deaths = Deaths()
        self._node = node
        self._chance = chance
        self._kills = kills
        self.hooks = Hooks(node)
        self._events = 2 * jobs // kills  # a life, and the time before it

    def run(self) -> None:
        """All of it; the agent runs at the end. Where neither died yet, they go until one did."""
        names: list[str] = []
        while self.deaths.at.total() < self._kills:
            assert not self.workload.over, f"too few jobs for so many kills: {self.deaths}"
            names = names or self._chance.sample(places(), len(places()))
            absent = self._chance.randint(1, min(3, self._events - 1))
            for _ in range(absent):
                self._step()
            name, events = names.pop(), self._events - absent
            if name in of_the_actuator():
                self._live_without_root(name, events)
            else:
                self._live(name, self._chance.randint(1, 3), events)
            if name not in self.deaths.at:
                names.insert(0, name)  # once more in this round
        self._node.agent.start()
        self._check_limits()
        while not self.workload.over:
            self._step()
        self._check_limits()

    def _step(self) -> None:
        if not self.workload.over:
            self.workload.step(self.hooks)

    def _live(self, name: str, nth: int, events: int) -> None:
        """One life of the agent, until it comes to the place for the nth time."""
        agent = self._node.agent
        agent.start(wait=False, env={VARIABLE: f"{name}:{nth}"})
        self._until_dead(agent.daemon, events)
        self._note(name, dead=not agent.alive)
        agent.kill()
        if self._chance.random() < CHECKED:
            agent.start()
            self._check_limits()
            agent.kill()

    def _live_without_root(self, name: str, events: int) -> None:
        """One life of the actuator beside an agent, and what comes after it: hooks that find the agent alone."""
        agent, actuator = self._node.agent, self._node.agent.actuator
        actuator.kill()
        often = self._chance.randint(1, 15 if name.startswith("server.") else 3)
        actuator.start(**{VARIABLE: f"{name}:{often}"})
        agent.start(wait=False)
        left = self._until_dead(actuator.daemon, events - 1)
        self._note(name, dead=not actuator.alive)
        actuator.kill()
        back = threading.Timer(RESTART_S, actuator.start)
        back.start()
        for _ in range(min(left, 2) + 1):
            self._step()
        back.join()
        agent.wait_ready()
        self._check_limits()
        agent.kill()

    def _until_dead(self, victim: Daemon, events: int) -> int:
        """Lets jobs come and go until it has died, or has lived for long; how many of the events did not come."""
        agent = self._node.agent
        while agent.alive and victim.alive and not agent.notify.seen("READY", "1"):
            time.sleep(0.005)
        end = time.monotonic() + LONGEST_LIFE_S
        while victim.alive and time.monotonic() < end:
            if events:
                events -= 1
                self._step()
            else:
                time.sleep(0.01)
        return events

    def _note(self, name: str, *, dead: bool) -> None:
        (self.deaths.at if dead else self.deaths.missed)[name] += 1
        count = self.deaths.at.total()
        if dead and count % TOLD_EVERY == 0:
            print(f"chaos: {count} of {self._kills} kills", file=sys.stderr, flush=True)

    def _check_limits(self) -> None:
        """Waits until every GPU has the limit that its job, or nobody, is to have. Raises AssertionError."""
        start = time.monotonic()
        try:
            wait_until(lambda: self.workload.wrong_limits() == {}, RIGHT_S, "limits are right", note=False)
        except AssertionError as error:
            lines = self._node.agent.log_text().splitlines()
            log = "\n".join(line for line in lines if not line.startswith("{"))[-4000:]
            raise AssertionError(
                f"wrong limits in watts: {self.workload.wrong_limits()}; {self.deaths}\n{log}"
            ) from error
        self.deaths.slowest_s = max(self.deaths.slowest_s, time.monotonic() - start)
