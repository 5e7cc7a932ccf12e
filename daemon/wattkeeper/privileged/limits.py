"""Setting power limits: within the device's range, never above what it is to have, baseline saved first, read back."""

from contextlib import suppress
from functools import partial
from typing import Literal

from wattkeeper.privileged.baselines import Baselines
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.privileged.nvml import Nvml
from wattkeeper.system.failpoint import failpoint

READ_BACK_TOLERANCE_MW = 1_000
"""Drivers round what they are asked for; a read-back this close is what was asked."""

Most = Literal["baseline", "default", "range"]
MOST: tuple[Most, ...] = ("baseline", "default", "range")
"""The highest limit that is set: the saved baseline, that or the device's default, or whatever the device takes."""


class Limits:
    """Sets limits through NVML. Calls on one device must not overlap; each blocks for as long as the driver does."""

    def __init__(self, nvml: Nvml, baselines: Baselines, most: Most = "range") -> None:
        self._nvml = nvml
        self._baselines = baselines
        self._most = most

    def set_limit(self, uuid: str, limit_mw: int) -> int:
        """Set the requested limit and give what reads back, both in milliwatts.

        Saves the baseline before the first write and refuses to write where it cannot. Raises DeviceError.
        """
        return self._nvml.afresh(partial(self._set, uuid, limit_mw))

    def claim(self, uuid: str) -> int:
        """Take a GPU over without a write, its limit being right already: saves the baseline, in milliwatts."""
        return self._nvml.afresh(partial(self._take, uuid))

    def save_baseline(self, uuid: str) -> int:
        """The baseline in milliwatts, saved now unless it was before. Raises DeviceError."""
        return self._nvml.afresh(partial(self._baseline, uuid))

    def give_back(self, uuid: str, limit_mw: int) -> int:
        """Set the limit the GPU is to be left with, and stop calling it ours. Raises DeviceError."""
        return self._nvml.afresh(partial(self._give, uuid, limit_mw))

    def baseline(self, uuid: str) -> tuple[int | None, bool]:
        """The saved baseline in milliwatts or None, and whether the GPU is ours. Raises DeviceError (STATE)."""
        return self._baselines.load_mw(uuid), self._baselines.owned(uuid)

    def _baseline(self, uuid: str) -> int:
        known = self._baselines.load_mw(uuid)
        return known if known is not None else self._baselines.save_mw(uuid, self._nvml.requested_mw(uuid))

    def _take(self, uuid: str) -> int:
        baseline_mw = self._baseline(uuid)
        failpoint("limits.saved")
        self._baselines.claim(uuid)
        failpoint("limits.claimed")
        return baseline_mw

    def _set(self, uuid: str, limit_mw: int) -> int:
        self._refuse_outside(uuid, limit_mw)
        self._take(uuid)
        return self._write(uuid, limit_mw)

    def _give(self, uuid: str, limit_mw: int) -> int:
        self._refuse_outside(uuid, limit_mw)
        with suppress(DeviceError):  # a file that nobody can read is in nobody's way, and stays what it is
            self._baseline(uuid)
        read_mw = self._write(uuid, limit_mw)
        self._baselines.release(uuid)
        return read_mw

    def _refuse_outside(self, uuid: str, limit_mw: int) -> None:
        low, high = self._nvml.range_mw(uuid)
        if self._most != "range" and low <= limit_mw <= high:
            default_mw = self._nvml.default_mw(uuid) if self._most == "default" else 0
            high = min(high, max(self._baseline(uuid), default_mw))
        if not low <= limit_mw <= high:
            tried = f"{limit_mw / 1000:g} W is outside of {low / 1000:g} to {high / 1000:g} W"
            raise DeviceError(Kind.INVALID, uuid, tried, f"the most that is set is its {self._most} (--most)")

    def _write(self, uuid: str, limit_mw: int) -> int:
        self._nvml.write_limit(uuid, limit_mw)
        failpoint("limits.written")
        read_mw = self._nvml.requested_mw(uuid)
        if abs(read_mw - limit_mw) > READ_BACK_TOLERANCE_MW:
            tried = f"set {limit_mw / 1000:g} W, it reads {read_mw / 1000:g} W"
            raise DeviceError(Kind.NOT_TAKEN, uuid, tried, "see whether another program manages this GPU")
        return read_mw
