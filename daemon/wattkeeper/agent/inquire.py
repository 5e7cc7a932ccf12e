"""Jobs whose hook did not tell all that policy looks at: what is asked for them, and what follows from the answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from wattkeeper.agent.lookup import PATIENCE_S, Lookups, merge, missing
from wattkeeper.agent.notes import note_of
from wattkeeper.agent.parts import Parts
from wattkeeper.config.settings import SlurmSettings
from wattkeeper.model import Holding, JobFacts, JobKey
from wattkeeper.protocols import Change

log = logging.getLogger("wattkeeper.lookup")

T = TypeVar("T")

_Holdings = tuple[Holding, ...]

Open = Callable[[Callable[[JobFacts], None]], Awaitable[Lookups]]
"""Opens the ways to look jobs up; given who is to be told what came late."""


_WHO = {"slurm": "Slurm about jobs", "groups": "the user database about groups"}


class Inquirer:
    """Has jobs looked up where a loaded policy needs it, and puts right what was decided without the answer.

    Nothing is opened before a policy needs it. ``published`` is called when something has been put right.
    """

    def __init__(self, parts: Parts, open_lookups: Open, published: Callable[[], None]) -> None:
        self._state = parts.state
        self._clock = parts.clock
        self._ledger = parts.ledger
        self._steersman = parts.steersman
        self._deciding = parts.deciding
        self._open = open_lookups
        self._published = published
        self._lookups: Lookups | None = None
        self._opened_with: SlurmSettings | None = None
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def up(self) -> Mapping[str, bool]:
        """Whether ``slurm`` and ``groups`` answered when they were last asked; those that policy needs nothing of, and
        those that nobody was asked of, are not in it."""
        return self._lookups.up if self.needed and self._lookups is not None else {}

    @property
    def trouble(self) -> str | None:
        """What does not answer; None where everything did when it was last asked."""
        failing = [_WHO[name] for name, up in sorted(self.up.items()) if not up]
        if not failing:
            return None
        return f"no answer from {' and '.join(failing)}: jobs get the lowest cap they could come to"

    @property
    def needed(self) -> bool:
        """Whether the policy in force looks at what only a look-up tells."""
        return Lookups.wanted(self._state.policy)

    async def complete(self, job: JobFacts, patience_s: float = PATIENCE_S) -> JobFacts:
        """A job's facts with what the policy needs, as far as it is known after ``patience_s`` seconds.

        What becomes known later is put right: of a job that does not begin after all, ``end`` must be called.
        """
        known = self._state.jobs.get(job.key)
        if known is not None and known.ended_at is None:  # its hook came again
            job = merge(job, known.facts)
        if not missing(job, self._state.policy) or job.key in self._state.over:
            return job
        begun_at = asyncio.get_running_loop().time()
        if not self._is_open():
            await asyncio.wait({self._keep(self._open_now())}, timeout=patience_s)
        if self._lookups is None or not self._is_open() or job.key in self._state.over:
            return job  # ``follow_up`` asks
        left_s = patience_s - (asyncio.get_running_loop().time() - begun_at)
        return await self._lookups.begin(job, self._state.policy, max(0.0, left_s))

    def follow_up(self, job: JobFacts) -> None:
        """Ask about a job that holds its GPUs now, where policy looks at what nobody was asked while it began."""
        if missing(job, self._state.policy) and not (self._lookups and self._lookups.is_asking(job.key)):
            self._keep(self._ask_late(job))

    async def _ask_late(self, job: JobFacts) -> None:
        async with self._deciding:  # what was answered while the job was decided on comes first
            known = self._state.jobs.get(job.key)
        if known is None or not missing(known.facts, self._state.policy):
            return
        await self._open_now()
        found = await self.complete(job, 0.0)
        if found != job:
            await self._put_right(found)

    async def take_up(self, patience_s: float = PATIENCE_S) -> None:
        """Ask about the jobs that run here and lack something: when the agent starts, and when the policy changes.

        What is known within ``patience_s`` seconds is with the jobs on return, and nothing decided by it yet: so no
        limit is lowered only to be raised again. Opens the ways to ask, so that no Prolog has to wait for that.
        """
        if not self.needed:
            return
        jobs = {holding.job.key: holding.job for holding in self._state.holdings}
        await asyncio.wait({self._keep(self._open_now())}, timeout=patience_s)
        found = await asyncio.gather(*(self.complete(job, patience_s) for job in jobs.values()))
        async with self._deciding:
            learnt = [after for before, after in map(self._learn, found) if after != before]
            if learnt:
                added = tuple(chain.from_iterable(learnt))
                await self._ledger.commit(Change(self._state.boot_id, self._clock.wall(), added=added))
        for facts in found:
            self.follow_up(facts)

    def end(self, keys: Iterable[JobKey]) -> None:
        """These runs have ended: nobody waits for the answer."""
        if self._lookups is not None:
            for key in keys:
                self._lookups.end(key)

    def end_unless_held(self, key: JobKey) -> None:
        """The same of a run that holds nothing: it did not begin."""
        if not any(holding.job.key == key for holding in self._state.holdings):
            self.end((key,))

    async def close(self) -> None:
        """Nothing may follow."""
        for task in self._tasks:
            task.cancel()
        if self._lookups is not None:
            await self._lookups.close()

    def _is_open(self) -> bool:
        return self._lookups is not None and self._opened_with == self._state.settings.slurm

    async def _open_now(self) -> None:
        """Open the ways to ask, by the settings in force."""
        async with self._opening:
            if self._is_open():
                return
            before, self._lookups = self._lookups, None
            if before is not None:
                await before.close()  # whom they were asked about, ``take_up`` and ``follow_up`` ask about again
            asked = self._state.settings.slurm
            self._lookups, self._opened_with = await self._open(self._tell), asked

    def _tell(self, found: JobFacts) -> None:
        self._keep(self._put_right(found))

    def _keep(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _learn(self, found: JobFacts) -> tuple[_Holdings, _Holdings]:
        """Note what is known of a job now; its holdings before and after. Those of a job that has ended are none."""
        before = tuple(holding for holding in self._state.holdings if holding.job.key == found.key)
        after = tuple(replace(holding, job=merge(holding.job, found)) for holding in before)
        job = self._state.jobs.get(found.key)
        if job is not None and after != before:
            job.facts = merge(job.facts, found)
            self._state.replace_holdings(before, after)
        return before, after

    async def _put_right(self, found: JobFacts) -> None:
        """Decide anew on the GPUs of a job of which more is known now."""
        async with self._deciding:
            before, after = self._learn(found)
            job = self._state.jobs.get(found.key)
            if job is None or after == before:
                return  # it has ended, or this was known
            targets = self._steersman.decide(holding.gpu for holding in after)
            self._state.unnoted.discard(found.key)
            notes = (note_of(self._state, job),)
            await self._ledger.commit(Change(self._state.boot_id, self._clock.wall(), added=after, notes=notes))
        rules = {f"rule '{d.rule}'" if d.rule else "no rule" for d in job.decisions.values()}
        log.info("job=%s is known better now: %s", found.key, ", ".join(sorted(rules)))
        await self._steersman.apply(self._steersman.wanted(targets), "lookup")
        await self._steersman.settle(targets)
        self._published()
