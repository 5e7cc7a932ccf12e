"""Jobs whose hook did not tell all that policy looks at: what is asked for them, and what follows from the answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from wattkeeper.agent.lookup import PATIENCE_S, Lookups, merge
from wattkeeper.agent.notes import note_of
from wattkeeper.agent.parts import Parts
from wattkeeper.core.policy import Policy
from wattkeeper.model import JobFacts, JobKey
from wattkeeper.protocols import Change

log = logging.getLogger("wattkeeper.lookup")

Open = Callable[[Callable[[JobFacts], None]], Awaitable[Lookups]]
"""Opens the ways to look jobs up; given who is to be told what came late."""


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
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def trouble(self) -> str | None:
        """What does not answer; None where everything did when it was last asked."""
        failing = sorted(self._lookups.failing) if self._lookups is not None else []
        return f"no answer from {', '.join(failing)}: jobs get the lowest cap they could come to" if failing else None

    @property
    def opened(self) -> bool:
        """Whether any policy so far needed a look-up."""
        return self._lookups is not None

    async def complete(self, job: JobFacts, patience_s: float = PATIENCE_S) -> JobFacts:
        """A job's facts with what the policy needs, as far as it is known after ``patience_s`` seconds."""
        known = self._state.jobs.get(job.key)
        if known is not None:  # its hook came again
            job = merge(job, known.facts)
        lookups = await self._lookups_for(self._state.policy)
        return job if lookups is None else await lookups.begin(job, self._state.policy, patience_s)

    async def take_up(self) -> None:
        """Ask about the jobs that run here and lack something: when the agent starts, and when the policy changes."""
        for job in {holding.job.key: holding.job for holding in self._state.holdings}.values():
            found = await self.complete(job, 0.0)
            if found != job:
                self._tell(found)

    def end(self, keys: Iterable[JobKey]) -> None:
        """These runs have ended: nobody waits for the answer."""
        if self._lookups is not None:
            for key in keys:
                self._lookups.end(key)

    async def close(self) -> None:
        """Nothing may follow."""
        for task in self._tasks:
            task.cancel()
        if self._lookups is not None:
            await self._lookups.close()

    async def _lookups_for(self, policy: Policy) -> Lookups | None:
        if self._lookups is None and Lookups.wanted(policy):
            async with self._opening:
                if self._lookups is None:
                    self._lookups = await self._open(self._tell)
        return self._lookups

    def _tell(self, found: JobFacts) -> None:
        task = asyncio.get_running_loop().create_task(self._put_right(found))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _put_right(self, found: JobFacts) -> None:
        """Decide anew on the GPUs of a job of which more is known now."""
        async with self._deciding:
            before = [holding for holding in self._state.holdings if holding.job.key == found.key]
            after = [replace(holding, job=merge(holding.job, found)) for holding in before]
            job = self._state.jobs.get(found.key)
            if job is None or after == before:
                return  # it has ended, or this was known
            job.facts = merge(job.facts, found)
            self._state.replace_holdings(before, after)
            targets = self._steersman.decide(holding.gpu for holding in after)
            self._state.unnoted.discard(found.key)
            notes = (note_of(self._state, job),)
            await self._ledger.commit(Change(self._state.boot_id, self._clock.wall(), added=tuple(after), notes=notes))
        rules = {f"rule '{d.rule}'" if d.rule else "no rule" for d in job.decisions.values()}
        log.info("job=%s is known better now: %s", found.key, ", ".join(sorted(rules)))
        await self._steersman.apply(self._steersman.wanted(targets), "lookup")
        await self._steersman.settle(targets)
        self._published()
