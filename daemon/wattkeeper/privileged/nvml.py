"""The NVML library: loading it, finding devices by UUID, and its errors in our words."""

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import pynvml

from wattkeeper.privileged.errors import DeviceError, Kind

T = TypeVar("T")

REQUESTED_LIMIT_FIELD = 192  # NVML_FI_DEV_POWER_REQUESTED_LIMIT: what was set

_KINDS = {
    pynvml.NVML_ERROR_NO_PERMISSION: (Kind.PERMISSION, "run the agent as root"),
    pynvml.NVML_ERROR_NOT_SUPPORTED: (Kind.UNSUPPORTED, ""),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: (Kind.UNSUPPORTED, "a newer driver has it"),
    pynvml.NVML_ERROR_INVALID_ARGUMENT: (Kind.INVALID, ""),
    pynvml.NVML_ERROR_GPU_IS_LOST: (Kind.LOST, "see dmesg for its XID; the GPU needs a reset"),
    pynvml.NVML_ERROR_RESET_REQUIRED: (Kind.LOST, "the GPU needs a reset"),
    pynvml.NVML_ERROR_UNINITIALIZED: (Kind.NO_DRIVER, ""),
    pynvml.NVML_ERROR_NOT_FOUND: (Kind.LOST, "this node has no such GPU any more: see dmesg"),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (Kind.NO_DRIVER, "load the NVIDIA driver"),
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (Kind.NO_DRIVER, "install the NVIDIA driver, or set gpus.library"),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (Kind.NO_DRIVER, "library and driver differ: reload the driver"),
}


class Nvml:
    """NVML, opened when first needed and again after a driver reload. Safe to use from many threads."""

    def __init__(self, library: str | None = None) -> None:
        """``library``: a path to load instead of the system's ``libnvidia-ml.so.1``."""
        self._library = library
        self._lock = threading.Lock()
        self._handles: dict[str, Any] = {}
        self._ranges_mw: dict[str, tuple[int, int]] = {}
        self._open = False
        self._stale = False
        self._times_opened = 0

    def open(self) -> None:
        """Load the library and initialise it, also again after the driver was reloaded under it.

        Raises DeviceError (NO_DRIVER) where there is none.
        """
        with self._lock:
            if self._open and not self._stale:
                return
            self._let_go()
            if self._library is not None:
                try:
                    ctypes.CDLL(self._library)  # pynvml asks for the SONAME and is given the one already loaded
                except OSError as error:
                    tried = f"{self._library}: {error}"
                    raise DeviceError(Kind.NO_DRIVER, "NVML", tried, "mend gpus.library") from None
            self.call("NVML", "initialise", pynvml.nvmlInit)
            self._open, self._stale = True, False
            self._times_opened += 1

    def close(self) -> None:
        """Forget every handle and let go of the driver, so that the next use opens it afresh."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        self._handles.clear()
        self._ranges_mw.clear()
        if self._open:
            self._open = False
            with suppress(pynvml.NVMLError):  # it was gone already
                pynvml.nvmlShutdown()

    def afresh(self, work: Callable[[], T]) -> T:
        """Do some work, and once more where the driver turned out to have been reloaded. Raises DeviceError."""
        begun_with = self._times_opened
        try:
            return work()
        except DeviceError as error:
            if error.kind is not Kind.NO_DRIVER:
                raise
            with self._lock:  # unless another thread has noticed it too, and opened the new one meanwhile
                self._stale |= self._times_opened == begun_with
            return work()

    def handle(self, uuid: str) -> Any:
        """NVML's handle of a device. Raises DeviceError, also where the device's own name is not quite that one."""
        if self._stale or uuid not in self._handles:
            self.open()
            handle = self.call(uuid, "find the device", lambda: pynvml.nvmlDeviceGetHandleByUUID(uuid))
            if self.call(uuid, "read its name", lambda: pynvml.nvmlDeviceGetUUID(handle)) != uuid:
                raise DeviceError(Kind.INVALID, uuid, "the device calls itself otherwise")
            self._handles[uuid] = handle
        return self._handles[uuid]

    def call(self, device: str, tried: str, call: Callable[[], T]) -> T:
        """Make a pynvml call; its errors come out as DeviceError with the device, the attempt and the mend."""
        try:
            return call()
        except pynvml.NVMLError as error:
            kind, mend = _KINDS.get(error.value, (Kind.AGAIN, ""))
            raise DeviceError(kind, device, f"cannot {tried}: {error}", mend) from None

    def requested_mw(self, uuid: str) -> int:
        """The power limit that was set, in milliwatts. Raises DeviceError.

        Where the driver has no such field the management limit stands for it: it too answers what was set.
        """
        try:
            (answer,) = self._ask(uuid, "read fields", pynvml.nvmlDeviceGetFieldValues, [REQUESTED_LIMIT_FIELD])
            if answer.nvmlReturn == pynvml.NVML_SUCCESS:
                return int(answer.value.uiVal)
        except DeviceError as error:
            if error.kind is not Kind.UNSUPPORTED:
                raise
        return int(self._ask(uuid, "read the limit", pynvml.nvmlDeviceGetPowerManagementLimit))

    def range_mw(self, uuid: str) -> tuple[int, int]:
        """The lowest and highest limit the device takes, in milliwatts; asked once. Raises DeviceError."""
        if uuid not in self._ranges_mw:
            low, high = self._ask(uuid, "read its range", pynvml.nvmlDeviceGetPowerManagementLimitConstraints)
            self._ranges_mw[uuid] = low, high
        return self._ranges_mw[uuid]

    def default_mw(self, uuid: str) -> int:
        """The limit that the device comes with, in milliwatts. Raises DeviceError."""
        return int(self._ask(uuid, "read its default limit", pynvml.nvmlDeviceGetPowerManagementDefaultLimit))

    def write_limit(self, uuid: str, limit_mw: int) -> None:
        """Set the requested limit in milliwatts. Raises DeviceError; says nothing of whether it took."""
        tried = f"set its limit to {limit_mw / 1000:g} W"
        self._ask(uuid, tried, pynvml.nvmlDeviceSetPowerManagementLimit, limit_mw)

    def _ask(self, uuid: str, tried: str, function: Callable[..., Any], *words: Any) -> Any:
        handle = self.handle(uuid)
        return self.call(uuid, tried, lambda: function(handle, *words))
