"""What happens every interval: read, charge, notice drift, repair, forget. A quiet tick says nothing."""

import logging

from wattkeeper.agent import meter
from wattkeeper.agent.notes import take_changed
from wattkeeper.agent.observe import READ_DEADLINE_S
from wattkeeper.agent.parts import Parts
from wattkeeper.agent.state import Gpu
from wattkeeper.core.drift import Cause, Reaction, react
from wattkeeper.core.plan import same_limit
from wattkeeper.model import Basis, EnergySource, GpuReading, GpuUuid
from wattkeeper.protocols import Change
from wattkeeper.system.failpoint import failpoint
from wattkeeper.units import format_power

log = logging.getLogger("wattkeeper.drift")


class Ticker:
    """One tick of the loop."""

    def __init__(self, parts: Parts) -> None:
        self._state = parts.state
        self._steersman = parts.steersman
        self._observer = parts.observer
        self._actuator = parts.actuator
        self._ledger = parts.ledger
        self._clock = parts.clock
        self._tally = parts.tally
        self._deciding = parts.deciding

    async def tick(self, cause: str = "retry") -> None:
        """Bring every GPU to its target. ``cause`` is what a write that no drift explains is counted as."""
        before = {uuid: gpu.reading for uuid, gpu in self._state.gpus.items()}
        async with self._deciding:
            self._expire_holds()
            await self._steersman.learn(self._state.gpus.values(), READ_DEADLINE_S)
            readings = await self._observer.read(self._state.gpus)
            await self._charge(readings)
            targets = self._steersman.decide(self._state.gpus)
            calm = [t for t in targets if t.gpu in readings and self._is_calm(self._state.gpus[t.gpu])]
            drifted = {t.gpu for t in calm if self._drifted(self._state.gpus[t.gpu], before[t.gpu])}
            left = {uuid for uuid in drifted if self._state.gpus[uuid].left_mw is not None}
            actions = self._steersman.wanted([t for t in calm if t.gpu not in left])
        await self._steersman.apply(actions, cause, drifted)
        await self._steersman.settle(calm)
        self._forget_jobs()

    def _is_calm(self, gpu: Gpu) -> bool:
        """True where no write is under way, or stuck: whoever would wait for that would keep the next tick waiting."""
        return not gpu.applying and not self._actuator.stalled(gpu.info.uuid)

    async def _charge(self, readings: dict[GpuUuid, GpuReading]) -> None:
        after = {uuid: self._state.owners(uuid) for uuid in readings}
        charges, watermarks = meter.cut(self._state, readings, after)
        notes = take_changed(self._state)
        if watermarks or notes:
            now_at = self._clock.wall()
            change = Change(self._state.boot_id, now_at, charges=charges, watermarks=watermarks, notes=notes)
            waits = False
            if self._can_be_read_again(change):
                waits = await self._ledger.charge(change)
            else:
                await self._ledger.commit(change)
            meter.take_in(self._state, self._tally, charges, watermarks)
            if not waits:
                meter.count(self._state)
            failpoint("tick.charged")

    def _can_be_read_again(self, change: Change) -> bool:
        """True where an agent that is killed finds all of it in the counters again, for the same owners."""
        marked = all(self._state.gpus[charge.gpu].watermark is not None for charge in change.charges)
        counted = all(c.source is EnergySource.COUNTER and c.gap is None for c in change.charges)
        divided = any(c.basis is Basis.USE for c in change.charges)  # by what no driver tells twice
        return marked and counted and not divided and change.is_energy_alone

    def _drifted(self, gpu: Gpu, before: GpuReading | None) -> bool:
        """True where somebody changed a limit that we had set and read back; says so, and decides what to do."""
        reading, target = gpu.reading, gpu.target
        if not gpu.ours or gpu.hold or gpu.drift.yielded or reading is None or target is None:
            return False
        now_mw, confirmed = reading.requested_mw, gpu.confirmed_mw
        if now_mw is None or confirmed is None or confirmed != target.limit_mw or same_limit(now_mw, confirmed):
            gpu.left_mw = None if now_mw == confirmed else gpu.left_mw
            return False
        if gpu.left_mw is not None and same_limit(now_mw, gpu.left_mw):
            return True
        cause = Cause.RESET if _restarted(before, reading) else Cause.WRITER
        reaction, gpu.drift = react(gpu.drift, self._clock.mono(), cause, self._state.settings.drift)
        gpu.left_mw = now_mw if reaction is not Reaction.REPAIRED else None
        self._tally.drift[gpu.info.minor, cause, reaction] += 1
        log.warning(
            "gpu=%d limit is %s, we set %s: cause=%s, %s",
            gpu.info.minor, format_power(now_mw), format_power(confirmed), cause, reaction,
        )  # fmt: skip
        return True

    def _expire_holds(self) -> None:
        now = self._clock.wall()
        for gpu in self._state.gpus.values():
            if gpu.hold is not None and gpu.hold.until_at is not None and gpu.hold.until_at <= now:
                log.warning("gpu=%d hold is over (%s): capping again", gpu.info.minor, gpu.hold.reason)
                gpu.hold = None

    def _forget_jobs(self) -> None:
        grace, now = self._state.settings.metrics.grace, self._clock.mono()
        jobs = self._state.jobs
        for key in [key for key, job in jobs.items() if job.ended_mono is not None and now - job.ended_mono > grace]:
            del jobs[key]


def _restarted(before: GpuReading | None, now: GpuReading) -> bool:
    """True where the energy counter began anew: the driver was reloaded or the GPU reset."""
    if before is None or before.energy_mj is None or now.energy_mj is None:
        return False
    return now.energy_mj < before.energy_mj
