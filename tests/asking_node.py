"""The agent's own parts where policy needs look-ups: every answer, and all time, comes when the test says so."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from tests.one_node import HandClock, OneNode, gpu, taken_in
from wattkeeper.agent.events import Answer, EventHandler
from wattkeeper.agent.inquire import Inquirer
from wattkeeper.agent.lookup import Lookups
from wattkeeper.agent.tick import Ticker
from wattkeeper.core.holdings import Moment
from wattkeeper.core.policy import Policy
from wattkeeper.model import GpuUuid, JobFacts, Unknown
from wattkeeper.protocols import Looked, LookupFailedError, LookupProblem
from wattkeeper.slurm.hook_event import EventKind
from wattkeeper.system.groups import Groups

T = TypeVar("T")

UID = 1000


class SteppedClock(HandClock):
    """Who sleeps wakes when the clock has been moved so far."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        awake = asyncio.Event()
        if seconds > 0:
            self._sleepers.append((self.at_mono + seconds, awake))
            await awake.wait()

    def advance(self, seconds: float) -> None:
        self.at_mono += seconds
        for at, awake in self._sleepers:
            if at <= self.at_mono:
                awake.set()
        self._sleepers = [(at, awake) for at, awake in self._sleepers if at > self.at_mono]


class HeldAnswers:
    """``JobLookup`` whose questions wait until they are answered. ``asked``: the job ids, in order."""

    def __init__(self) -> None:
        self.truth: dict[int, Looked] = {}
        self.asked: list[int] = []
        self.closed = 0
        self._open: list[tuple[int, asyncio.Future[Looked]]] = []

    async def look_up(self, job_id: int, deadline_s: float) -> Looked:
        self.asked.append(job_id)
        answer: asyncio.Future[Looked] = asyncio.get_running_loop().create_future()
        self._open.append((job_id, answer))
        return await answer

    async def close(self) -> None:
        self.closed += 1

    def waiting(self) -> set[int]:
        """The jobs about which somebody waits for an answer."""
        return {job_id for job_id, answer in self._open if not answer.done()}

    def tell(self, job_id: int) -> None:
        """The truth, to all who wait for it."""
        for answer in self._of(job_id):
            answer.set_result(self.truth[job_id])

    def fail(self, job_id: int, problem: LookupProblem = LookupProblem.TIMEOUT) -> None:
        for answer in self._of(job_id):
            answer.set_exception(LookupFailedError(problem, f"job {job_id}: {problem}"))

    def _of(self, job_id: int) -> list[asyncio.Future[Looked]]:
        return [answer for one, answer in self._open if one == job_id and not answer.done()]


class AskingNode:
    """A node of H100s with a Slurm that answers when told to. ``known_groups``: those of the jobs' one owner."""

    def __init__(self, policy: Policy, gpus: int = 2) -> None:
        self.slurm = HeldAnswers()
        self.clock = SteppedClock()
        self.known_groups: frozenset[str] = frozenset()
        self.opened = 0
        self.published = 0
        self.node = OneNode(*map(gpu, range(gpus)), policy=policy, clock=self.clock)
        self._runner = asyncio.Runner()
        self._arm()

    def _arm(self) -> None:
        self.inquirer = Inquirer(self.node.parts, self._open, self._count)
        self.events = EventHandler(self.node.parts, self.inquirer)
        self._ticker = Ticker(self.node.parts)

    async def _open(self, tell: Callable[[JobFacts], None]) -> Lookups:
        self.opened += 1
        return Lookups([("scontrol", self.slurm)], cast(Groups, self), self.clock, self.node.tally, tell, 2.0)

    async def look_up(self, uid: int, deadline_s: float) -> frozenset[str] | Unknown:
        """In the place of ``Groups``."""
        return self.known_groups

    def _count(self) -> None:
        self.published += 1

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs it to its end, and then all that can go on without an answer or time."""

        async def settled() -> T:
            result = await work
            for _ in range(60):
                await asyncio.sleep(0)
            return result

        return self._runner.run(settled())

    async def _nothing(self) -> None:
        return

    def prolog(self, job_id: int, gpus: str, *, waits: bool = False, **more: str) -> Answer:
        """``waits``: as a hook that waits its 200 ms for an answer; else as one out of the spool, which does not."""
        named = {"SLURM_JOB_GPUS": gpus, "CUDA_VISIBLE_DEVICES": gpus, "SLURM_JOB_PARTITION": "gpu", **more}
        return self._post(EventKind.PROLOG, job_id, named, waits=waits)

    def epilog(self, job_id: int) -> Answer:
        return self._post(EventKind.EPILOG, job_id, {}, waits=False)

    def _post(self, kind: EventKind, job_id: int, more: dict[str, str], *, waits: bool) -> Answer:
        self.advance(1)
        named = {"SLURM_JOB_ID": str(job_id), "SLURM_JOB_UID": str(UID), "SLURM_CLUSTER_NAME": "c", **more}
        raw = b"".join(f"{name}={value}\0".encode() for name, value in named.items())
        when = None if waits else Moment(self.clock.wall(), self.clock.mono())
        return self.do(taken_in(self.events, kind, raw, when))

    def tell(self, job_id: int) -> None:
        """Slurm answers all who ask about a job."""
        self.slurm.tell(job_id)
        self.do(self._nothing())

    def fail(self, job_id: int, problem: LookupProblem = LookupProblem.TIMEOUT) -> None:
        self.slurm.fail(job_id, problem)
        self.do(self._nothing())

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.do(self._nothing())

    def tick(self, cause: str = "retry") -> None:
        self.do(self._ticker.tick(cause))

    def reload(self, policy: Policy) -> None:
        """As the agent does at SIGHUP."""
        self.node.state.policy = self.node._policy = policy
        self.do(self.inquirer.take_up(0.0))
        self.tick("reload")

    def restart(self) -> None:
        """Another agent, which knows what the ledger kept."""
        self.do(self.inquirer.close())
        self.node.start()
        self._arm()
        self.do(self.inquirer.take_up(0.0))
        self.tick("recovery")

    def close(self) -> None:
        self.do(self.inquirer.close())
        self._runner.close()

    def limit_w(self, minor: int) -> float:
        """What the device has."""
        requested_mw = self.node.gpus.gpus[GpuUuid(f"GPU-{minor}")].reading.requested_mw
        assert requested_mw is not None
        return requested_mw / 1000

    def held(self) -> set[int]:
        """The jobs that hold a GPU."""
        return {holding.job.key.job_id for holding in self.node.state.holdings}
