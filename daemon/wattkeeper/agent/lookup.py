"""Fields of a job that its hook did not tell: one look-up per job start on this node, only where policy needs it.

The Prolog waits ``PATIENCE_S`` at most. What is not known by then stays UNKNOWN in the job's facts, under which the job
gets the lowest cap that it could come to; the look-up goes on beside, with pauses that grow, until it has an answer or
the job has ended, and ``tell`` gets the facts as they then are.
"""

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace

from wattkeeper.agent.tally import Tally
from wattkeeper.core.policy import Policy
from wattkeeper.model import UNKNOWN, JobFacts, JobKey
from wattkeeper.protocols import Clock, JobLookup, Looked, LookupFailedError, LookupProblem
from wattkeeper.system.groups import Groups

log = logging.getLogger("wattkeeper.lookup")

PATIENCE_S = 0.18
"""Of the 200 ms by which look-ups may delay a Prolog; the rest is for the work on what did not come."""
NODES_PER_S = 50
"""How many of a job's nodes ask slurmctld in a second; they take their slots by hash."""
AT_ONCE = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
GROUPS_S = 10.0
SLURMS = frozenset({"qos", "job_name"})
"""Fields that only Slurm can tell."""
LOOKED_UP = SLURMS | {"group"}
OUTCOMES = ("ok", *LookupProblem)


def missing(job: JobFacts, policy: Policy) -> frozenset[str]:
    """The fields of a job that a rule or ceiling looks at and a look-up could still tell."""
    return frozenset(name for name in policy.fields() & LOOKED_UP if _value(job, name) is UNKNOWN)


def slot_s(job: JobFacts) -> float:
    """How long this node waits before it asks: of ``num_nodes``/50 s, the share that falls to it; 0 for one node."""
    nodes = job.num_nodes if isinstance(job.num_nodes, int) else 1
    if nodes <= 1:
        return 0.0
    return nodes / NODES_PER_S * zlib.crc32(f"{job.key.job_id}@{job.node}".encode()) / 2**32


class Lookups:
    """Looks up what jobs lack. ``sources`` in the order they are asked, by the name their count goes under.

    The next source is asked only where one before it refused, or was not to be believed.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, JobLookup]],
        groups: Groups,
        clock: Clock,
        tally: Tally,
        tell: Callable[[JobFacts], None],
        timeout_s: float,
    ) -> None:
        self._sources = sources
        self._groups = groups
        self._clock = clock
        self._tally = tally
        self._tell = tell
        self._timeout_s = timeout_s
        self._running: dict[tuple[JobKey, str], asyncio.Task[JobFacts]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._failing: set[str] = set()
        self._up: dict[str, bool] = {}
        for name, _ in sources:
            for outcome in OUTCOMES:
                tally.slurm_lookups[name, outcome] += 0

    @property
    def up(self) -> Mapping[str, bool]:
        """Whether ``slurm`` and ``groups`` answered when they were last asked. One that did not is left out when
        nobody waits for it any more: it may have come back since."""
        return dict(self._up)

    @staticmethod
    def wanted(policy: Policy) -> bool:
        """True where some rule or ceiling of a policy looks at a field that only a look-up tells."""
        return bool(policy.fields() & LOOKED_UP)

    async def begin(self, job: JobFacts, policy: Policy, patience_s: float = PATIENCE_S) -> JobFacts:
        """The facts of a job with what policy needs, or as much of it as is known after ``patience_s`` seconds.

        What comes later is told, perhaps twice, as these facts with that added: ``merge`` it with the newest. What is
        being looked up for this run already is waited for, not asked again. Also for a job that runs already, when
        the policy changes or the agent starts: then with ``patience_s`` 0.
        """
        lacking = missing(job, policy)
        tasks = set[asyncio.Task[JobFacts]]()
        if "group" in lacking:
            tasks.add(self._task(job, "groups", self._find_groups))
        if lacking & SLURMS and self._sources:  # without any (`lookup: off`) it stays unknown
            tasks.add(self._task(job, "slurm", self._find_fields))
        if not tasks:
            return job
        done, late = await asyncio.wait(tasks, timeout=patience_s)
        for task in late:
            task.add_done_callback(self._late)
        for task in done:
            job = job if task.cancelled() else merge(job, task.result())
        return job

    def is_asking(self, key: JobKey) -> bool:
        """True while something is being looked up for this run."""
        tasks = (self._running.get((key, which)) for which in ("slurm", "groups"))
        return any(task is not None and not task.done() for task in tasks)

    def end(self, key: JobKey) -> None:
        """The job has ended: what is still looked up for it interests nobody."""
        for which in ("slurm", "groups"):
            task = self._running.pop((key, which), None)
            if task is not None:
                task.cancel()
            waiting = any(name == which and not other.done() for (_, name), other in self._running.items())
            if not waiting and not self._up.get(which, True):
                del self._up[which]

    async def close(self) -> None:
        """End every look-up, and close the sources."""
        for key, _ in tuple(self._running):
            self.end(key)
        for _, source in self._sources:
            await source.close()

    def _task(
        self, job: JobFacts, which: str, find: Callable[[JobFacts], Coroutine[None, None, JobFacts]]
    ) -> asyncio.Task[JobFacts]:
        running = self._running.get((job.key, which))
        if running is None or running.done():
            running = self._running[job.key, which] = asyncio.create_task(find(job))
        return running

    def _late(self, task: asyncio.Task[JobFacts]) -> None:
        if not task.cancelled():
            self._tell(task.result())

    async def _find_groups(self, job: JobFacts) -> JobFacts:
        async def ask() -> JobFacts | None:
            groups = await self._groups.look_up(job.uid, GROUPS_S)
            self._up["groups"] = groups is not UNKNOWN
            if groups is UNKNOWN:
                why = f"job {job.key}: this node's user database does not tell the groups of user {job.uid}"
                self._ill("groups", why)
                return None
            self._well("groups")
            return replace(job, groups=groups)

        return await self._until_told(ask)

    async def _find_fields(self, job: JobFacts) -> JobFacts:
        async def ask() -> JobFacts | None:
            await self._clock.sleep(slot_s(job))
            looked = await self._ask(job)
            return None if looked is None else merge(job, replace(job, qos=looked.qos, job_name=looked.job_name))

        return await self._until_told(ask)

    async def _until_told(self, ask: Callable[[], Awaitable[JobFacts | None]]) -> JobFacts:
        """Ask again and again, with pauses that grow."""
        pause_s = FIRST_PAUSE_S
        while (told := await ask()) is None:
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return told

    async def _ask(self, job: JobFacts) -> Looked | None:
        """What the first source that can be believed says; None where none does."""
        for name, source in self._sources:
            try:
                async with self._at_once:
                    looked = await source.look_up(job.key.job_id, self._timeout_s)
                _check(job, looked, name)
            except LookupFailedError as error:
                self._tally.slurm_lookups[name, error.kind] += 1
                self._up["slurm"] = error.kind is LookupProblem.NOT_FOUND
                self._ill(name, str(error))
                if error.kind not in {LookupProblem.REFUSED, LookupProblem.WRONG}:
                    return None  # another source would wait for the same slurmctld
            else:
                self._tally.slurm_lookups[name, "ok"] += 1
                self._up["slurm"] = True
                self._well(name)
                return looked
        return None

    def _ill(self, name: str, text: str) -> None:
        if name not in self._failing:
            self._failing.add(name)
            log.warning("%s; jobs get the lowest cap they could come to until it tells", text)

    def _well(self, name: str) -> None:
        if name in self._failing:
            self._failing.remove(name)
            log.info("%s answers again", name)


def _check(job: JobFacts, looked: Looked, name: str) -> None:
    if (looked.job_id, looked.uid) != (job.key.job_id, job.uid):
        text = f"job {job.key}: {name} answered of job {looked.job_id}, user {looked.uid}"
        raise LookupFailedError(LookupProblem.WRONG, text)


def _value(job: JobFacts, name: str) -> object:
    return job.groups if name == "group" else getattr(job, name)


def merge(job: JobFacts, found: JobFacts) -> JobFacts:
    """The job, with what only ``found`` knows."""
    return replace(
        job,
        qos=found.qos if job.qos is UNKNOWN else job.qos,
        job_name=found.job_name if job.job_name is UNKNOWN else job.job_name,
        groups=found.groups if job.groups is UNKNOWN else job.groups,
    )
