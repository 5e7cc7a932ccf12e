"""Every function of NVML, called with good arguments and with bad ones, by nothing but its declaration."""

import ctypes
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pynvml

Handle = int | None

_ROOM = 1 << 16
_NOT_HERE = re.compile(r"nvml(Init|Shutdown|.*EventSetWait)")  # they have an order, or wait: see ``Calls.wait``
_VERSIONS = sorted({v for n, v in vars(pynvml).items() if re.fullmatch(r"nvml\w+_v\d+", n) and isinstance(v, int)})


@dataclass(frozen=True)
class Declaration:
    """A function and the types of what it takes, as ``nvml.h`` has them."""

    name: str
    takes: tuple[str, ...]


def declarations(preprocessed: str) -> list[Declaration]:
    """What a preprocessed ``nvml.h`` declares."""
    text = re.sub(r"^#.*$", "", preprocessed, flags=re.MULTILINE)
    count = 1
    while count:
        text, count = re.subn(r"\{[^{}]*\}", "", text)
    found = {}
    for name, arguments in re.findall(r"\b(nvml\w+)\s*\(([^()]*)\)\s*;", text):
        takes = [" ".join(one.split()) for one in arguments.split(",") if one.strip() not in ("", "void")]
        found[name] = Declaration(name, tuple(takes))
    return sorted(found.values(), key=lambda one: one.name)


class Calls:
    """The functions of one loaded library, and room for what they write."""

    def __init__(self, library: ctypes.CDLL, functions: Sequence[Declaration]) -> None:
        self.library = library
        self.functions = [one for one in functions if not _NOT_HERE.match(one.name)]
        self._room = [ctypes.create_string_buffer(_ROOM) for _ in range(8)]

    def every(self, handles: Sequence[Handle], *, thorough: bool) -> int:
        """Calls all functions; answers how many calls that were."""
        count = 0
        for function in self.functions:
            for arguments in self._arguments(function, handles, thorough=thorough):
                getattr(self.library, function.name)(*arguments)
                count += 1
        return count

    def handles(self) -> list[Handle]:
        """The handles of all GPUs that can be had, and of their MIG instances."""
        found: list[Handle] = []
        for index in range(16):
            device = ctypes.c_void_p()
            if self.library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0:
                found.append(device.value)
                for part in range(8):
                    instance = ctypes.c_void_p()
                    asked = self.library.nvmlDeviceGetMigDeviceHandleByIndex(device, part, ctypes.byref(instance))
                    found += [instance.value] if asked == 0 else []
        return found

    def wait(self, device: Handle) -> None:
        """Events of a device: a set is made, waited for without patience, freed, and used once more."""
        made = ctypes.c_void_p()
        self.library.nvmlEventSetCreate(ctypes.byref(made))
        for handle in (made, None, ctypes.c_void_p(1)):
            self.library.nvmlDeviceRegisterEvents(ctypes.c_void_p(device), ctypes.c_ulonglong(8), handle)
            for name in ("nvmlEventSetWait", "nvmlEventSetWait_v2"):
                getattr(self.library, name)(handle, self._room[0], 0)
                getattr(self.library, name)(handle, None, 0)
        self.library.nvmlEventSetFree(made)
        self.library.nvmlEventSetWait_v2(made, self._room[0], 0)

    def _arguments(self, function: Declaration, handles: Sequence[Handle], *, thorough: bool) -> Iterator[list[Any]]:
        usual = [self._usual(place, takes) for place, takes in enumerate(function.takes)]
        devices = [place for place, takes in enumerate(function.takes) if re.fullmatch(r"nvmlDevice_t \w+", takes)]
        for handle in handles if devices else [None]:
            for fill in self._fills(function) if thorough else (0,):
                self._fill(fill)
                yield self._at(handle, devices, usual)
                for place, takes in enumerate(function.takes) if thorough else ():
                    for bad in _bad(takes):
                        yield self._at(handle, devices, [*usual[:place], bad, *usual[place + 1 :]], keep=place)

    def _at(self, handle: Handle, devices: Sequence[int], values: Sequence[Any], keep: int | None = None) -> list[Any]:
        """The arguments with a handle in its places."""
        return [
            ctypes.c_void_p(handle) if place in devices and place != keep else value
            for place, value in enumerate(values)
        ]

    def _usual(self, place: int, takes: str) -> Any:
        if "*" in takes or "[" in takes:
            return self._room[place]
        if "long" in takes:
            return ctypes.c_ulonglong(0)
        if re.match(r"nvml\w+(_t|_st) ?", takes) and _is_handle(takes):
            return None
        return 96 if "length" in takes.lower() or "count" in takes.lower() else 0

    def _fills(self, function: Declaration) -> Iterator[int]:
        """What stands first in the caller's structs: nothing, all ones, each version that a struct may bear."""
        yield from (0, 1, -1)
        if any("*" in takes and "_t *" in takes for takes in function.takes):
            yield from _VERSIONS

    def _fill(self, first: int) -> None:
        for room in self._room:
            if first == -1:
                ctypes.memset(room, 0xFF, _ROOM - 64)
                continue
            ctypes.memset(room, 0, 4096)
            ctypes.c_uint32.from_buffer(room).value = first
        ctypes.memset(ctypes.byref(self._room[0], _ROOM - 64), 0, 64)  # a text ends somewhere


def _is_handle(takes: str) -> bool:
    return bool(re.match(r"nvml(Device|Unit|EventSet|GpuInstance|ComputeInstance|GpmSample|SystemEventSet)_t", takes))


def _bad(takes: str) -> tuple[Any, ...]:
    """What nobody should hand over in such a place."""
    if "*" in takes or "[" in takes:
        return (None,)
    if _is_handle(takes):
        return (None, ctypes.c_void_p(1), ctypes.c_void_p(2**64 - 1))
    if "long" in takes:
        return (ctypes.c_ulonglong(1), ctypes.c_ulonglong(2**63), ctypes.c_ulonglong(2**64 - 1))
    return (ctypes.c_uint(1), ctypes.c_uint(2), ctypes.c_uint(1000), ctypes.c_uint(2**31), ctypes.c_uint(2**32 - 1))
