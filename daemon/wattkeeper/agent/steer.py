"""From the holdings to the limits: resolve, arbitrate, plan, apply."""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable, Sequence
from dataclasses import replace

from wattkeeper.agent.state import Gpu, State
from wattkeeper.agent.tally import Tally
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.edges import is_stale, wait_s
from wattkeeper.core.plan import plan, same_limit
from wattkeeper.core.resolve import resolve, resolve_idle
from wattkeeper.model import Action, Conditions, Decision, GpuReading, GpuUuid, JobKey, Target
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.protocols import Actuator, Clock
from wattkeeper.units import Milliwatts, format_power

log = logging.getLogger("wattkeeper.caps")

WRITE_DEADLINE_S = 1.4

MAYBE_DONE = (Kind.TIMEOUT, Kind.NO_ACTUATOR)
"""No answer is not a no: the call may be done yet, when the job it was for is long gone."""


class Steersman:
    """Turns the state's holdings into limits on the devices, and tells the state what came of it."""

    def __init__(self, state: State, actuator: Actuator, clock: Clock, tally: Tally) -> None:
        self._state = state
        self._actuator = actuator
        self._clock = clock
        self._tally = tally

    def decide(self, gpus: Iterable[GpuUuid]) -> tuple[Target, ...]:
        """Resolve each GPU anew, note the decisions with its jobs, and give the targets."""
        state = self._state
        observe = state.settings.mode == "observe"
        conditions = Conditions(self._clock.wall(), state.node, observe=observe, zone=state.zone)
        return tuple(self._decide(state.gpus[uuid], conditions) for uuid in gpus if uuid in state.gpus)

    def _decide(self, gpu: Gpu, conditions: Conditions) -> Target:
        state, uuid = self._state, gpu.info.uuid
        context = state.context(gpu)
        holders = state.holders(uuid)
        grounds = (holders, context, conditions.observe, conditions.node, conditions.zone, state.policy)
        same = gpu.target is not None and gpu.grounds == grounds
        if gpu.target is not None and same and not _is_stale(gpu, gpu.target, conditions.now_at):
            return gpu.target
        decisions = [resolve(h.job, context, state.policy, conditions) for h in holders]
        target = arbitrate(decisions or [resolve_idle(context, state.policy, conditions)], context, state.policy)
        if gpu.target is None or gpu.target.limit_mw != target.limit_mw:
            gpu.confirmed_mw, gpu.timed = None, same
        gpu.target, gpu.grounds, gpu.decided_at = target, grounds, conditions.now_at
        for holding, decision in zip(holders, target.decisions, strict=False):
            self._note(holding.job.key, decision, target)
        return target

    def _note(self, key: JobKey, decision: Decision, target: Target) -> None:
        """With the job; what is new of it, the ledger hears of with the next change."""
        job = self._state.jobs.get(key)
        if job is not None and job.decisions.get(target.gpu) != decision:
            self._state.unnoted.add(key)
            job.decisions[target.gpu] = decision

    def _confirm(self, gpu: Gpu, limit_mw: Milliwatts) -> None:
        """The limit reads back: where it is still the target, and not only observed, the holders have that cap."""
        gpu.confirmed_mw, target = limit_mw, gpu.target
        if target is None or target.observe or target.limit_mw != limit_mw:
            return
        for holding in self._state.holders(gpu.info.uuid):
            job = self._state.jobs.get(holding.job.key)
            if job is not None and job.caps_mw.get(gpu.info.uuid) != limit_mw:
                job.caps_mw[gpu.info.uuid] = limit_mw
                self._state.unnoted.add(holding.job.key)

    def changes_in_s(self, most_s: float) -> float:
        """How long until a decision may change by time alone, at most ``most_s`` seconds."""
        changes = [d.next_change for gpu in self._state.gpus.values() if gpu.target for d in gpu.target.decisions]
        return wait_s(changes, self._clock.wall(), most_s)

    def wanted(self, targets: Sequence[Target], *, starting: bool = False) -> tuple[Action, ...]:
        """The writes that targets call for, on the GPUs that are the agent's to write now.

        ``starting``: a job begins, so that even a GPU that nobody has written is brought to its baseline.
        """
        mine = []
        for target in targets:
            gpu = self._state.gpus[target.gpu]
            if gpu.left_be:
                continue
            baseline = self._state.baseline_mw(gpu)
            if target.observe:
                # observed GPUs are not written, but one that we wrote before is still owed its baseline
                if not gpu.ours or baseline is None:
                    continue
                mine.append(replace(target, limit_mw=baseline, observe=False))
            elif gpu.ours or gpu.applying or starting or target.limit_mw != baseline:
                mine.append(target)
        gpus = {target.gpu: self._state.gpus[target.gpu] for target in mine}
        limits = {target.gpu: target.limit_mw for target in mine}
        ahead = {uuid: _ahead(gpu, limits[uuid]) for uuid, gpu in gpus.items()}
        readings = {uuid: reading for uuid, reading in ahead.items() if reading is not None}
        known = [uuid for uuid, gpu in gpus.items() if self._state.baseline_mw(gpu) is not None]
        return plan(mine, readings, known)

    async def learn(self, gpus: Iterable[Gpu], deadline_s: float) -> None:
        """Ask once more about GPUs of which nobody could say whether they are ours."""
        untold = [ask_book(gpu, self._actuator, deadline_s) for gpu in gpus if self._can_be_asked(gpu)]
        if untold:
            await asyncio.gather(*untold)

    def _can_be_asked(self, gpu: Gpu) -> bool:
        return not gpu.told and not self._actuator.stalled(gpu.info.uuid)

    async def apply(self, actions: Sequence[Action], cause: str, drifted: Collection[GpuUuid] = frozenset()) -> bool:
        """Write: all lowerings at once, then all raises. True where every limit reads back as wanted.

        ``cause`` is what the writes are counted as, but for those on ``drifted`` GPUs, which are repairs.
        """
        done = True
        for action in actions:
            gpu = self._state.gpus[action.gpu]
            gpu.applying, gpu.writing_mw = gpu.applying + 1, action.new_mw
        for part in ([a for a in actions if a.lowers], [a for a in actions if not a.lowers]):
            causes = ["drift" if action.gpu in drifted else self._cause(action.gpu, cause) for action in part]
            done &= all(await asyncio.gather(*map(self._write, part, causes)))
        return done

    def _cause(self, uuid: GpuUuid, otherwise: str) -> str:
        return "schedule" if self._state.gpus[uuid].timed else otherwise

    async def settle(self, targets: Sequence[Target]) -> None:
        """Note ownership where no write is needed: take GPUs whose limit is right already, give idle ones back."""
        due = [move for target in targets if (move := self._move(self._state.gpus[target.gpu], target)) is not None]
        if due:
            await asyncio.gather(*due)

    def _move(self, gpu: Gpu, target: Target) -> Awaitable[None] | None:
        """What is left to do on a GPU whose limit reads as wanted; None on a quiet tick."""
        if target.limit_mw is None or gpu.reading is None or gpu.reading.requested_mw is None:
            return None
        if gpu.left_be or gpu.applying:
            return None
        if not same_limit(gpu.reading.requested_mw, target.limit_mw):
            return None
        gpu.error = None
        self._confirm(gpu, target.limit_mw)
        baseline, idle = self._state.baseline_mw(gpu), not self._state.holders(gpu.info.uuid)
        if gpu.ours and idle and target.limit_mw == baseline:
            return self._give_back(gpu, target.limit_mw)
        if not gpu.ours and not target.observe and baseline is not None and target.limit_mw < baseline:
            return self._claim(gpu)
        return None

    async def _give_back(self, gpu: Gpu, limit_mw: Milliwatts) -> None:
        try:
            await self._actuator.give_back(gpu.info.uuid, limit_mw, WRITE_DEADLINE_S)
            gpu.ours = False
        except DeviceError as error:
            self._failed(gpu, error)

    async def _claim(self, gpu: Gpu) -> None:
        try:
            gpu.saved_mw = Milliwatts(await self._actuator.claim(gpu.info.uuid, WRITE_DEADLINE_S))
            gpu.ours = True
        except DeviceError as error:
            self._failed(gpu, error)
            gpu.ours |= error.kind in MAYBE_DONE and gpu.saved_mw is not None

    async def _write(self, action: Action, cause: str) -> bool:
        gpu = self._state.gpus[action.gpu]
        backs_off = not self._state.holders(action.gpu) and action.new_mw == self._state.baseline_mw(gpu)
        try:
            if gpu.writing_mw != action.new_mw:
                return True  # while the lowerings were made, a newer target has overtaken this one
            write = self._actuator.give_back if backs_off else self._actuator.set_limit
            read_mw = Milliwatts(await write(action.gpu, action.new_mw, WRITE_DEADLINE_S))
        except DeviceError as error:
            if error.kind is Kind.REPLACED:
                return True  # a newer target is on its way
            self._failed(gpu, error)
            if error.kind in MAYBE_DONE and not backs_off:
                gpu.ours = True
                gpu.keep_baseline(action.old_mw)
            return False
        finally:
            gpu.applying -= 1
            gpu.writing_mw = gpu.writing_mw if gpu.applying else None
            gpu.written_mono = self._clock.mono()
        gpu.ours = not backs_off
        gpu.error = None
        gpu.keep_baseline(action.old_mw)
        if gpu.target is not None and gpu.target.limit_mw == action.new_mw:
            self._confirm(gpu, action.new_mw)
        if gpu.reading is not None:
            gpu.reading = _after_write(gpu.reading, read_mw)
        self._tally.cap_writes[cause] += 1
        self._log(gpu, action, cause)
        return True

    def _log(self, gpu: Gpu, action: Action, cause: str) -> None:
        jobs = ",".join(str(h.job.key) for h in self._state.holders(action.gpu)) or "none"
        log.info(
            "limit set: job=%s gpu=%d old=%s new=%s cause=%s why=%s",
            jobs, gpu.info.minor, format_power(action.old_mw), format_power(action.new_mw), cause, action.reason,
        )  # fmt: skip

    def _failed(self, gpu: Gpu, error: DeviceError) -> None:
        self._tally.cap_write_errors[gpu.info.minor, str(error.kind)] += 1
        if gpu.error != str(error):
            log.error("gpu=%d limit not set: %s", gpu.info.minor, error)
        gpu.error = str(error)


async def ask_book(gpu: Gpu, actuator: Actuator, deadline_s: float) -> None:
    """Learn what was saved of a GPU, and whether it is ours; ``told`` stays false where nobody says. Never raises."""
    try:
        saved, gpu.ours = await actuator.baseline(gpu.info.uuid, deadline_s)
    except DeviceError as error:
        if gpu.error != str(error):
            log.error("gpu=%d %s", gpu.info.minor, error)
        gpu.error = str(error)
    else:
        gpu.saved_mw, gpu.told, gpu.error = None if saved is None else Milliwatts(saved), True, None


def _after_write(reading: GpuReading, read_mw: Milliwatts) -> GpuReading:
    """A reading with the limit that was just set. What is enforced now follows from it, or waits for the next look:
    after a raise the old figure would look like an out-of-band limit."""
    enforced, before = reading.enforced_mw, reading.requested_mw
    if enforced is not None:
        freed = before is None or (same_limit(enforced, before) and read_mw > enforced)
        enforced = None if freed else min(enforced, read_mw)
    return replace(reading, requested_mw=read_mw, enforced_mw=enforced)


def _ahead(gpu: Gpu, wanted_mw: Milliwatts | None) -> GpuReading | None:
    """A reading to plan from. Where a write of another limit is under way, the card will have that one: what it reads
    now says nothing, and if it is what is wanted, another write is needed all the same."""
    if gpu.reading is None or wanted_mw is None or gpu.writing_mw is None or same_limit(gpu.writing_mw, wanted_mw):
        return gpu.reading
    return replace(gpu.reading, requested_mw=gpu.writing_mw)


def _is_stale(gpu: Gpu, target: Target, now_at: float) -> bool:
    """True where a decision said nothing of this time."""
    return any(is_stale(gpu.decided_at, d.next_change, now_at) for d in target.decisions)
