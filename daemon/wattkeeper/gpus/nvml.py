"""NVIDIA GPUs, read through NVML."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pynvml

from wattkeeper.gpus.sweep import Sweeper
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.model import GpuInfo, GpuReading, GpuUuid
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.privileged.nvml import REQUESTED_LIMIT_FIELD, Nvml
from wattkeeper.protocols import Clock
from wattkeeper.units import Millijoules, Milliwatts

T = TypeVar("T")

CURRENT_LIMIT_FIELD = 190  # NVML_FI_DEV_POWER_CURRENT_LIMIT: what holds, an out-of-band limit included
_LIMIT_FIELDS = [REQUESTED_LIMIT_FIELD, CURRENT_LIMIT_FIELD]

NO_COUNT = 2**60
"""No counter of a card comes so far: in nanoseconds it is 36 years, in millijoules a kilowatt for 36,000. What says so
is garbage, as a rule NVML's 2^64 - 1 for *not available*."""

AHEAD_US = 5_000_000
"""A sample of use is of the past: one that says to be so much later than our clock is garbage."""


class NvmlReader:
    """The ``GpuReader`` of NVIDIA cards. A device's calls never overlap, and one that hangs holds up no other."""

    def __init__(self, nvml: Nvml, clock: Clock, thread_of: Callable[[str], DeviceThread]) -> None:
        self._nvml = nvml
        self._clock = clock
        self._thread_of = thread_of
        self._sweeper = Sweeper()
        self._use_seen_us: dict[GpuUuid, int] = {}  # by GPU, up to when its samples of use have been taken

    async def list_gpus(self, deadline_s: float) -> tuple[GpuInfo, ...]:
        """The GPUs of this node, by minor number; a device that answers nothing is left out. Raises DeviceError."""
        return await self._thread_of("NVML").run("list the GPUs", lambda: self._nvml.afresh(self._list), deadline_s)

    async def read(
        self, gpus: Sequence[GpuUuid], deadline_s: float, shared: Collection[GpuUuid] = ()
    ) -> dict[GpuUuid, GpuReading | DeviceError]:
        """Limits, power, energy, temperature and use of each GPU, or why it cannot be read; what a card lacks is None.

        One after the other, each within ``deadline_s`` seconds; one that is late holds nobody else up. ``shared``:
        those of which it is also asked how much each process has used them since they were last read.
        """
        works = [partial(self._nvml.afresh, partial(self._read, gpu, gpu in shared)) for gpu in gpus]
        calls = list(zip(map(self._thread_of, gpus), works, strict=True))
        return dict(zip(gpus, await self._sweeper.sweep("read", calls, deadline_s), strict=True))

    def stalled(self, gpu: GpuUuid) -> bool:
        """True while a call on this device is out past its deadline."""
        return self._thread_of(gpu).stalled

    def reopen(self) -> None:
        """Forget the driver and its handles, as is needed after it was reloaded."""
        self._nvml.close()

    def _list(self) -> tuple[GpuInfo, ...]:
        self._nvml.open()
        call = self._nvml.call
        count = call("NVML", "count the GPUs", pynvml.nvmlDeviceGetCount)
        driver = str(call("NVML", "read the driver's version", pynvml.nvmlSystemGetDriverVersion))
        found = []
        for index in range(count):
            try:
                found.append(self._describe(index, driver))
            except DeviceError as error:
                if error.kind is Kind.NO_DRIVER:
                    raise
        return tuple(sorted(found, key=lambda info: info.minor))

    def _describe(self, index: int, driver: str) -> GpuInfo:
        name = f"GPU with index {index}"
        handle = self._nvml.call(name, "open the device", lambda: pynvml.nvmlDeviceGetHandleByIndex(index))

        def ask(what: str, call: Callable[[Any], T]) -> T:
            return self._nvml.call(name, f"read its {what}", lambda: call(handle))

        low, high = ask("range of limits", pynvml.nvmlDeviceGetPowerManagementLimitConstraints)
        return GpuInfo(
            uuid=GpuUuid(str(ask("UUID", pynvml.nvmlDeviceGetUUID))),
            minor=int(ask("minor number", pynvml.nvmlDeviceGetMinorNumber)),
            index=index,
            model=str(ask("name", pynvml.nvmlDeviceGetName)),
            default_mw=Milliwatts(ask("default limit", pynvml.nvmlDeviceGetPowerManagementDefaultLimit)),
            min_mw=Milliwatts(low),
            max_mw=Milliwatts(high),
            driver_version=driver,
            instances=self._instances(handle),
        )

    def _instances(self, gpu: Any) -> tuple[tuple[str, int], ...]:
        """The MIG instances of a GPU; none where it has no MIG, or will not say."""
        try:
            if pynvml.nvmlDeviceGetMigMode(gpu)[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
                return ()
            most = pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
        except pynvml.NVMLError:
            return ()
        found = []
        for place in range(most):
            with suppress(pynvml.NVMLError):  # there are gaps where instances were destroyed
                instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place)
                slices = pynvml.nvmlDeviceGetAttributes_v2(instance).gpuInstanceSliceCount
                found.append((str(pynvml.nvmlDeviceGetUUID(instance)), int(slices)))
        return tuple(found)

    def _read(self, gpu: GpuUuid, shared: bool = False) -> GpuReading:
        handle = self._nvml.handle(gpu)
        requested, enforced = self._limits_mw(gpu, handle)
        # stamped just before the counter is read: two readings never claim more time than lies between them
        at_mono, at = self._clock.mono(), self._clock.wall()
        energy = self._optional(gpu, lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        power = self._optional(gpu, lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
        celsius = self._optional(gpu, lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        use = self._optional(gpu, lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
        capped = self._optional(gpu, lambda: pynvml.nvmlDeviceGetViolationStatus(handle, pynvml.NVML_PERF_POLICY_POWER))
        by_pid = self._use_by_pid(gpu, handle) if shared else None
        if by_pid is None:
            self._use_seen_us[gpu] = int(at * 1e6)
        return GpuReading(
            at_mono=at_mono,
            at=at,
            requested_mw=Milliwatts(requested),
            enforced_mw=Milliwatts(enforced),
            power_mw=None if power is None else Milliwatts(power),
            energy_mj=None if energy is None or energy >= NO_COUNT else Millijoules(energy),
            temperature_c=None if celsius is None else int(celsius),
            utilization_percent=None if use is None else int(use.gpu),
            capped_ns=None if capped is None or capped.violationTime >= NO_COUNT else int(capped.violationTime),
            use_by_pid=by_pid,
        )

    def _limits_mw(self, gpu: GpuUuid, handle: Any) -> tuple[int, int]:
        """The requested and the enforced limit; where the driver lacks a field, what the older calls answer for it."""
        call, requested, enforced = self._nvml.call, None, None
        try:
            answers = call(gpu, "read fields", lambda: pynvml.nvmlDeviceGetFieldValues(handle, _LIMIT_FIELDS))
            requested, enforced = (a.value.uiVal if a.nvmlReturn == pynvml.NVML_SUCCESS else None for a in answers)
        except DeviceError as error:
            if error.kind is not Kind.UNSUPPORTED:
                raise
        if requested is None:
            requested = call(gpu, "read the limit", lambda: pynvml.nvmlDeviceGetPowerManagementLimit(handle))
        if enforced is None:
            enforced = call(gpu, "read the limit", lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        return int(requested), int(enforced)

    def _use_by_pid(self, gpu: GpuUuid, handle: Any) -> dict[int, int] | None:
        """By process, its share of the use of the multiprocessors (percent, summed over the samples since last time).

        None where nothing is newer, or the card does not account for it: one in MIG mode does not. Samples that
        cannot be are left out: drivers were seen to give percentages such as 2,147,483,632.
        """
        since_us, latest_us = self._use_seen_us.get(gpu, 0), int(self._clock.wall() * 1e6) + AHEAD_US
        try:
            samples = pynvml.nvmlDeviceGetProcessUtilization(handle, since_us)
        except pynvml.NVMLError:
            return None
        used: dict[int, int] = {}
        for sample in samples:
            # drivers were seen to give what they gave before
            if since_us < sample.timeStamp <= latest_us and sample.smUtil <= 100:
                used[int(sample.pid)] = used.get(int(sample.pid), 0) + int(sample.smUtil)
                self._use_seen_us[gpu] = max(self._use_seen_us.get(gpu, 0), int(sample.timeStamp))
        return used or None

    def _optional(self, gpu: GpuUuid, call: Callable[[], T]) -> T | None:
        """None where this card lacks what is asked; a device that is in trouble still raises."""
        try:
            return self._nvml.call(gpu, "read", call)
        except DeviceError as error:
            if error.kind in {Kind.UNSUPPORTED, Kind.INVALID, Kind.AGAIN, Kind.PERMISSION}:
                return None
            raise
