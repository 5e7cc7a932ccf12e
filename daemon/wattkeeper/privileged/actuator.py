"""Setting power limits: within the device's range, baseline saved first, read back after."""

from collections.abc import Callable
from functools import partial

from wattkeeper.privileged.baselines import Baselines
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.privileged.nvml import Nvml
from wattkeeper.privileged.worker import DeviceThread

READ_BACK_TOLERANCE_MW = 1_000
"""Drivers round what they are asked for; a read-back this close is what was asked."""


class NvmlActuator:
    """Sets limits through NVML. Every call on a device goes through that device's thread."""

    def __init__(self, nvml: Nvml, baselines: Baselines, thread_of: Callable[[str], DeviceThread]) -> None:
        self._nvml = nvml
        self._baselines = baselines
        self._thread_of = thread_of

    async def set_limit(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        """Set the requested limit and give what reads back, both in milliwatts.

        Saves the baseline before the first write and refuses to write where it cannot. Raises DeviceError.
        """
        return await self._run(uuid, "set_limit", partial(self._set, uuid, limit_mw), deadline_s, replaces=True)

    async def claim(self, uuid: str, deadline_s: float) -> int:
        """Take a GPU over without a write, its limit being right already: saves the baseline, in milliwatts."""
        return await self._run(uuid, "claim", partial(self._take, uuid), deadline_s)

    async def save_baseline(self, uuid: str, deadline_s: float) -> int:
        """The baseline in milliwatts, saved now unless it was before. Raises DeviceError."""
        return await self._run(uuid, "save_baseline", partial(self._baseline, uuid), deadline_s)

    async def give_back(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        """Set the limit the GPU is to be left with, and stop calling it ours. Raises DeviceError."""
        return await self._run(uuid, "set_limit", partial(self._give, uuid, limit_mw), deadline_s, replaces=True)

    async def baseline(self, uuid: str, deadline_s: float) -> tuple[int | None, bool]:
        """The saved baseline in milliwatts or None, and whether the GPU is ours. Raises DeviceError (STATE)."""
        call = lambda: (self._baselines.load_mw(uuid), self._baselines.owned(uuid))  # noqa: E731
        return await self._thread_of(uuid).run("load_baseline", call, deadline_s)

    async def _run(
        self, uuid: str, what: str, work: Callable[[], int], deadline_s: float, *, replaces: bool = False
    ) -> int:
        """Work on a device, in its thread, with a driver that may have been reloaded meanwhile."""
        call = partial(self._nvml.afresh, work)
        return await self._thread_of(uuid).run(what, call, deadline_s, replaces=replaces)

    def _baseline(self, uuid: str) -> int:
        known = self._baselines.load_mw(uuid)
        return known if known is not None else self._baselines.save_mw(uuid, self._nvml.limits_mw(uuid)[0])

    def _take(self, uuid: str) -> int:
        baseline_mw = self._baseline(uuid)
        self._baselines.claim(uuid)
        return baseline_mw

    def _set(self, uuid: str, limit_mw: int) -> int:
        low, high = self._nvml.range_mw(uuid)
        if not low <= limit_mw <= high:
            tried = f"{limit_mw / 1000:g} W is outside of {low / 1000:g} to {high / 1000:g} W"
            raise DeviceError(Kind.INVALID, uuid, tried)
        self._take(uuid)
        return self._write(uuid, limit_mw)

    def _give(self, uuid: str, limit_mw: int) -> int:
        read_mw = self._write(uuid, limit_mw)
        self._baselines.release(uuid)
        return read_mw

    def _write(self, uuid: str, limit_mw: int) -> int:
        self._nvml.write_limit(uuid, limit_mw)
        read_mw, _ = self._nvml.limits_mw(uuid)
        if abs(read_mw - limit_mw) > READ_BACK_TOLERANCE_MW:
            tried = f"set {limit_mw / 1000:g} W, it reads {read_mw / 1000:g} W"
            raise DeviceError(Kind.NOT_TAKEN, uuid, tried, "see whether another program manages this GPU")
        return read_mw
