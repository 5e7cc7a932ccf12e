"""Prolog and Epilog: from a hook's environment to caps that are set and read back."""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wattkeeper.agent import meter
from wattkeeper.agent.inquire import Inquirer
from wattkeeper.agent.lookup import PATIENCE_S
from wattkeeper.agent.notes import notes_of
from wattkeeper.agent.observe import READ_DEADLINE_S
from wattkeeper.agent.parts import Parts
from wattkeeper.agent.state import Gpu, Job, State
from wattkeeper.core.drift import DriftHistory
from wattkeeper.core.holdings import Moment, Transition, Verdict, begin, end
from wattkeeper.ledger.rows import account_of
from wattkeeper.model import GpuUuid, JobFacts, JobKey
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.protocols import Change
from wattkeeper.slurm.gres import Device, MappingError
from wattkeeper.slurm.hook_event import EventError, EventKind, HookEvent, parse_event
from wattkeeper.system.failpoint import failpoint
from wattkeeper.text import printable
from wattkeeper.units import Milliwatts

log = logging.getLogger("wattkeeper.jobs")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an event. ``applied``: every limit that it called for reads back. ``text`` says so in words."""

    outcome: str
    applied: bool
    text: str


Writes = Coroutine[Any, Any, Answer]
"""The part of an event that talks to devices: to be awaited once it is decided, beside others."""


class EventHandler:
    """Handles hook events one decision at a time; the writes they lead to run beside each other."""

    def __init__(self, parts: Parts, inquirer: Inquirer) -> None:
        self._inquirer = inquirer
        self._state = parts.state
        self._steersman = parts.steersman
        self._observer = parts.observer
        self._actuator = parts.actuator
        self._ledger = parts.ledger
        self._clock = parts.clock
        self._tally = parts.tally
        self._deciding = parts.deciding

    async def handle(self, kind: EventKind, raw: bytes) -> Answer:
        """Take in an event that happens now, and bring its GPUs to what follows from it. See ``begin``."""
        return await (await self.begin(kind, raw))

    async def begin(self, kind: EventKind, raw: bytes, when: Moment | None = None) -> Writes:
        """Take an event in: decide, and write the decision down. What it gives makes the writes that follow.

        ``when``: of an event from the spool, whose energy interval nobody can cut any more. Never raises for what
        the event says; what it cannot make sense of is counted and told.
        """
        received = self._clock.mono()
        try:
            writes = await self._take_in(kind, parse_event(kind, raw), when)
        except (EventError, MappingError) as error:
            outcome = "unmapped" if isinstance(error, MappingError) else "invalid"
            log.error("%s refused: %s", kind, error)
            writes = _nothing_to_write(Answer(outcome, False, str(error)))
        return self._finish(kind, writes, received if when is None else None)

    async def _finish(self, kind: EventKind, writes: Awaitable[Answer], received_mono: float | None) -> Answer:
        answer = await writes
        self._tally.hook_events[kind, answer.outcome] += 1
        if received_mono is not None:
            self._tally.applied(kind, self._clock.mono() - received_mono)
        return answer

    async def _take_in(self, kind: EventKind, event: HookEvent, when: Moment | None) -> Writes:
        moment = when or Moment(self._clock.wall(), self._clock.mono())
        job = self._on_this_node(event.job)
        if kind is not EventKind.PROLOG or not event.gpus:
            return await self._decide(kind, event, job, moment, when)
        job = await self._inquirer.complete(job, PATIENCE_S if when is None else 0.0)
        try:
            return await self._decide(kind, event, job, moment, when)
        finally:
            self._inquirer.end_unless_held(job.key)

    async def _decide(
        self, kind: EventKind, event: HookEvent, job: JobFacts, moment: Moment, when: Moment | None
    ) -> Writes:
        async with self._deciding:
            if kind is EventKind.PROLOG:
                try:
                    devices = self._devices(event)
                except MappingError as error:
                    self._state.alarms["gres"] = f"job {job.key}: {error}"
                    raise
                if not devices:
                    return _nothing_to_write(Answer("no_gpu", True, "the job has no GPU on this node"))
                job = replace(job, gpus=len(devices))
                transition = begin_on(self._state, job, devices, moment)
                await self._save_baselines((device.uuid for device in devices), transition)
            else:
                transition = end(job.key, moment, self._state.holdings, self._state.over)
            affected = transition.gpus or frozenset(h.gpu for h in self._state.holdings if h.job.key == job.key)
            await self.carry_out(transition, moment, cut=when is None)
            self._steersman.decide(affected)
            if transition.verdict is Verdict.STARTED:
                self._started(job, transition)
                self._inquirer.follow_up(job)
        starting = kind is EventKind.PROLOG and transition.verdict is not Verdict.LATE
        return self._write(job.key, transition, affected, starting=starting)

    async def _write(
        self, key: JobKey, transition: Transition, affected: Iterable[GpuUuid], *, starting: bool
    ) -> Answer:
        """Bring GPUs to their targets as these are by now: a later event may have moved them on."""
        gpus = [self._state.gpus[uuid] for uuid in affected if uuid in self._state.gpus]
        targets = [gpu.target for gpu in gpus if gpu.target is not None]
        actions = self._steersman.wanted(targets, starting=starting)
        applied = await self._steersman.apply(actions, "start" if starting else "end")
        await self._steersman.settle(targets)
        failpoint("event.applied")
        return self._answer(key, transition, applied, [target.gpu for target in targets])

    async def carry_out(self, transition: Transition, moment: Moment, *, cut: bool) -> None:
        """Write a transition and the energy interval it closes in one transaction, then bring the state to it."""
        state = self._state
        if not (transition.removed or transition.added or transition.over):
            return
        self._make_room(transition)
        here = transition.gpus & state.gpus.keys()  # a GPU that was lost before our start has nothing to read
        readings = await self._observer.read(here, note_free=cut)
        after = {uuid: _owners_after(state, uuid, transition) for uuid in here}
        charges, watermarks = meter.cut(state, readings if cut else {}, after)
        change = Change(
            boot_id=state.boot_id,
            at=moment.at,
            removed=transition.removed,
            added=transition.added,
            over=transition.over,
            charges=charges,
            watermarks=watermarks,
            notes=notes_of(state, transition, moment),
        )
        failpoint("event.decided")
        await self._ledger.commit(change)
        failpoint("event.committed")
        self._note_jobs(transition, moment)  # first, as in the ledger: the account that is known now is charged
        meter.settle(state, self._tally, charges, watermarks)
        state.replace_holdings(transition.removed, transition.added)
        state.note_over(transition.over, moment.mono)
        self._inquirer.end(transition.over)
        for uuid in here:
            # a new holder is a new start for whoever fights over the limit
            state.gpus[uuid].drift, state.gpus[uuid].left_mw = DriftHistory(), None

    def _make_room(self, transition: Transition) -> None:
        """A run whose name was used before, by one that has ended and is still shown, is another job."""
        for holding in transition.added:
            job = self._state.jobs.get(holding.job.key)
            if job is not None and job.ended_at is not None:
                del self._state.jobs[holding.job.key]

    def _devices(self, event: HookEvent) -> Sequence[Device]:
        devices = self._state.gres.find(event.gpus, event.visible)
        self._state.alarms.pop("gres", None)
        return [device for device in devices if device.uuid in self._state.gpus]

    def _on_this_node(self, job: JobFacts) -> JobFacts:
        if job.node and self._state.settings.node is None and job.node != self._state.node:
            self._state.node = job.node
        if job.key.cluster:
            self._state.cluster = job.key.cluster
        return replace(job, node=job.node or self._state.node)

    async def _save_baselines(self, gpus: Iterable[GpuUuid], transition: Transition) -> None:
        """Before a job holds a GPU that nobody else holds: the moment at which its limit is surely nobody's cap."""
        if transition.verdict is not Verdict.STARTED:
            return
        gone = {(h.job.key, h.gpu) for h in transition.removed}
        free = [
            self._state.gpus[uuid]
            for uuid in gpus
            if all((h.job.key, h.gpu) in gone for h in self._state.holders(uuid))
        ]
        await asyncio.gather(*(self._save_baseline(gpu) for gpu in free if gpu.saved_mw is None))

    async def _save_baseline(self, gpu: Gpu) -> None:
        try:
            saved = await self._actuator.save_baseline(gpu.info.uuid, READ_DEADLINE_S)
        except DeviceError as error:
            gpu.error = str(error)
            log.error("gpu=%d %s", gpu.info.minor, error)
        else:
            gpu.saved_mw = Milliwatts(saved)

    def _note_jobs(self, transition: Transition, moment: Moment) -> None:
        for holding in transition.removed:
            job = self._state.jobs.get(holding.job.key)
            if job is not None and holding.job.key in transition.over:
                job.ended_at, job.ended_mono = job.end_at(moment.at), self._clock.mono()
        for key in transition.superseded:
            log.warning("job=%s has ended: another job holds its GPU and its Epilog never came", key)
        if transition.added:
            facts = transition.added[0].job
            now_mono = self._clock.mono()
            job = self._state.jobs.setdefault(facts.key, Job(facts, (), moment.at, born_mono=now_mono))
            self._state.accounts.expect(account_of(facts), now_mono)
            job.facts, job.gpus = facts, tuple(h.gpu for h in transition.added)

    def _started(self, facts: JobFacts, transition: Transition) -> None:
        """Count the request once, at the job's start, and tell what was decided."""
        decisions = list(self._state.jobs[facts.key].decisions.values())
        if not decisions:
            return
        self._tally.requests[decisions[0].outcome] += 1
        minors = ",".join(str(self._state.gpus[h.gpu].info.minor) for h in transition.added)
        user = printable(facts.user if isinstance(facts.user, str) else str(facts.uid), 40)
        asked = "nothing" if decisions[0].asked is None else f"'{decisions[0].asked}'"
        log.info("job=%s user=%s gpus=%s asked=%s %s", facts.key, user, minors, asked, decisions[0].outcome)

    def _answer(self, key: JobKey, transition: Transition, applied: bool, gpus: list[GpuUuid]) -> Answer:
        errors = [self._state.gpus[uuid].error for uuid in gpus]
        troubles = "; ".join(error for error in errors if error)
        if not applied or troubles:
            return Answer("failed", False, f"job {key}: {troubles or 'a limit could not be set'}")
        outcome = "applied" if transition.verdict in {Verdict.STARTED, Verdict.ENDED} else str(transition.verdict)
        return Answer(outcome, True, f"job {key} {transition.verdict}")


async def _nothing_to_write(answer: Answer) -> Answer:
    return answer


def begin_on(state: State, job: JobFacts, devices: Sequence[Device], moment: Moment) -> Transition:
    """What follows from a job's start on these devices; nothing is changed yet."""
    shares = {device.uuid: device.share for device in devices}
    slices = {device.uuid: device.slices for device in devices}
    return begin(job, shares, moment, state.holdings, state.over, slices)


def _owners_after(state: State, uuid: GpuUuid, transition: Transition) -> tuple[JobKey, ...]:
    gone = {h.job.key for h in transition.removed if h.gpu == uuid}
    stay = {key for key in state.owners(uuid) if key not in gone}
    return tuple(sorted(stay | {h.job.key for h in transition.added if h.gpu == uuid}))
