"""Jobs of half a second to five of the GPUs' own time, which stands still at their hooks: their truth is exact."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.bench.node import GPUS, BenchNode, Job

SHORTEST_S, LONGEST_S = 0.5, 5.0
ACCOUNTS = ("astro", "ml-vision", "ml-text", "physics")
PARTITIONS = ("gpu", "debug")
MOST_J = 1_300.0
"""The most a job draws from one GPU. Its time here passes at once, and what a real H100 cannot draw in a second the
agent takes for a counter that jumped (core/attribute.py)."""

Tell = Callable[[str, Job], bool]
"""Tells the agent of an event of a job, "prolog" or "epilog". True where it answered, False where the event waits."""


@dataclass(order=True)
class Run:
    """A job, and its GPUs' counters in millijoules at its two hooks, by minor number."""

    ends_s: float
    job: Job = field(compare=False)
    before: dict[int, int] = field(compare=False, default_factory=dict)
    after: dict[int, int] = field(compare=False, default_factory=dict)
    answered: bool = field(compare=False, default=False)

    def energy_mj(self, minor: int) -> int:
        return self.after[minor] - self.before[minor]


class Workload:
    """So many jobs, each on one GPU or several, as soon as there are free ones. Needs a node whose clock is manual."""

    def __init__(self, node: BenchNode, chance: Random, count: int) -> None:
        self.done: list[Run] = []
        self._node = node
        self._chance = chance
        self._left = count
        self._now_s = 0.0
        self._free = set(range(GPUS))
        self._running: list[Run] = []
        self._wanted = self._draw_size()

    @property
    def over(self) -> bool:
        return not self._left and not self._running

    def step(self, tell: Tell) -> None:
        """The next start or end of a job."""
        if self._left and self._wanted <= len(self._free):
            self._begin(tell)
        else:
            self._end(tell)

    def wrong_limits(self) -> dict[int, int]:
        """In watts, by minor number: what GPUs are set to that have not what their job, or nobody, is to have."""
        right = dict.fromkeys(range(GPUS), self._node.baseline_w)
        right |= {minor: run.job.cap_w for run in self._running for minor in run.job.minors}
        limits = {gpu.minor: gpu.requested_mw // 1000 for gpu in self._node.simulation.show().gpus}
        return {minor: limit_w for minor, limit_w in limits.items() if limit_w != right[minor]}

    def _draw_size(self) -> int:
        return self._chance.choice((1, 1, 1, 1, 1, 1, 2, 2, 4, GPUS))

    def _begin(self, tell: Tell) -> None:
        if self._chance.random() < 0.1:
            self._pass(self._chance.uniform(0, 0.3))
        minors = sorted(self._chance.sample(sorted(self._free), self._wanted))
        seconds = self._chance.uniform(SHORTEST_S, LONGEST_S)
        job = self._node.job(minors, self._chance.choice(ACCOUNTS), self._chance.choice(PARTITIONS))
        run = Run(self._now_s + seconds, job, self._counters(minors))
        run.answered = tell("prolog", job)
        for minor in minors:
            self._node.simulation.load(minor, self._chance.random() * _heaviest(self._node, minor, seconds))
        heapq.heappush(self._running, run)
        self._free -= set(minors)
        self._left -= 1
        self._wanted = self._draw_size()

    def _end(self, tell: Tell) -> None:
        run = heapq.heappop(self._running)
        self._pass(max(0.0, run.ends_s - self._now_s))
        run.after = self._counters(run.job.minors)
        run.answered &= tell("epilog", run.job)
        for minor in run.job.minors:
            self._node.simulation.load(minor, 0)
        self._free |= set(run.job.minors)
        self.done.append(run)

    def _pass(self, seconds: float) -> None:
        self._node.simulation.advance(seconds)
        self._now_s += seconds

    def _counters(self, minors: tuple[int, ...] | list[int]) -> dict[int, int]:
        gpus = self._node.simulation.show().gpus
        return {minor: gpus[minor].counter_mj for minor in minors}


def _heaviest(node: BenchNode, minor: int, seconds: float) -> float:
    """The load, 0 to 1, under which a GPU draws MOST_J in so long."""
    gpu = node.simulation.gpu(minor)
    return min(1.0, (MOST_J / seconds - gpu.idle_mw / 1000) * 1000 / (gpu.peak_mw - gpu.idle_mw))
