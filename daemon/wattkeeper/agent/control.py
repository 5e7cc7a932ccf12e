"""What an admin tells a running agent: hold, resume, restore."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from wattkeeper.agent.parts import Parts
from wattkeeper.agent.state import Gpu
from wattkeeper.agent.steer import WRITE_DEADLINE_S
from wattkeeper.core.drift import DriftHistory
from wattkeeper.errors import WattkeeperError
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.protocols import Change
from wattkeeper.snapshot import AdminHold
from wattkeeper.text import printable
from wattkeeper.units import Milliwatts, format_power, watts

log = logging.getLogger("wattkeeper.control")

RESTORED = "restored to the baseline by an admin; only observed until `wattkeeper resume`"


class Control:
    """Takes GPUs out of the agent's hands and gives them back. ``minor`` None means every GPU of the node."""

    def __init__(self, parts: Parts) -> None:
        self._state = parts.state
        self._actuator = parts.actuator
        self._ledger = parts.ledger
        self._clock = parts.clock
        self._deciding = parts.deciding

    async def hold(self, minor: int | None, seconds: float | None, reason: str) -> list[Mapping[str, Any]]:
        """Write nothing to these GPUs for so long (None: until ``resume``). Raises WattkeeperError."""
        now = self._clock.wall()
        hold = AdminHold(printable(reason, 200), now, None if seconds is None else now + seconds)
        return [self._report(gpu, "held") for gpu in await self._set(minor, hold)]

    async def resume(self, minor: int | None) -> list[Mapping[str, Any]]:
        """Cap these GPUs again, also ones yielded to another writer. Raises WattkeeperError."""
        gpus = await self._set(minor, None)
        for gpu in gpus:
            gpu.drift, gpu.left_mw = DriftHistory(), None
        return [self._report(gpu, "capped by policy again") for gpu in gpus]

    async def restore(self, minor: int | None) -> list[Mapping[str, Any]]:
        """Put these GPUs back to their baseline now, and only observe them until ``resume``. Raises WattkeeperError."""
        gpus = await self._set(minor, AdminHold(RESTORED, self._clock.wall(), None))
        return list(await asyncio.gather(*(self._give_back(gpu) for gpu in gpus)))

    async def _give_back(self, gpu: Gpu) -> Mapping[str, Any]:
        baseline = self._state.baseline_mw(gpu)
        if not gpu.ours or baseline is None:
            return self._report(gpu, "not written by us: left as it is")
        try:
            read_mw = await self._actuator.give_back(gpu.info.uuid, baseline, WRITE_DEADLINE_S)
        except DeviceError as error:
            gpu.error = str(error)
            return self._report(gpu, f"not restored: {error}")
        gpu.ours = False
        log.warning("gpu=%d restored to its baseline of %s", gpu.info.minor, format_power(baseline))
        return {**self._report(gpu, "back at its baseline"), "limit_w": watts(Milliwatts(read_mw))}

    async def _set(self, minor: int | None, hold: AdminHold | None) -> list[Gpu]:
        async with self._deciding:
            gpus = [gpu for gpu in self._state.gpus.values() if minor is None or gpu.info.minor == minor]
            if not gpus:
                known = ", ".join(str(gpu.info.minor) for gpu in self._state.gpus.values()) or "none"
                raise WattkeeperError(f"this node has no GPU {minor} (GPUs: {known})")
            for gpu in gpus:
                gpu.hold = hold
                log.warning("gpu=%d %s", gpu.info.minor, f"held: {hold.reason}" if hold else "resumed")
            holds = {gpu.info.uuid: hold for gpu in gpus}
            await self._ledger.commit(Change(self._state.boot_id, self._clock.wall(), holds=holds))
        return gpus

    def _report(self, gpu: Gpu, note: str) -> Mapping[str, Any]:
        requested = gpu.reading.requested_mw if gpu.reading else None
        return {"gpu": gpu.info.minor, "limit_w": None if requested is None else watts(requested), "note": note}
