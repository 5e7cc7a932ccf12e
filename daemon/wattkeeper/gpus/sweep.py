"""One call on each of several devices, one after the other.

Waking a thread costs more than a call on a device does, and threads that queue for the driver's lock and for Python's
cost more again. So one thread makes all calls of a sweep. A device's own thread is woken only where somebody else is
just talking to that device, and where the sweep is stuck on another: a device that hangs holds nobody else up.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.privileged.errors import DeviceError

T = TypeVar("T")
Calls = Sequence[tuple[DeviceThread, Callable[[], T]]]


class Sweeper:
    """Makes sweeps. There are as many threads as sweeps were ever under way or stuck at a time: one, as a rule."""

    def __init__(self) -> None:
        self._free: list[DeviceThread] = []

    async def sweep(self, what: str, calls: Calls[T], deadline_s: float) -> list[T | DeviceError]:
        """What each call gives, in their order; a DeviceError in the place of one that raised it or came too late.

        Each has ``deadline_s`` seconds. Once one was late the rest are made all at once: one deadline for all.
        """
        if not calls:
            return []
        sweep = _Sweep(what, calls)
        thread = self._free.pop() if self._free else DeviceThread("sweep")
        thread.begin(partial(self._go, sweep, thread), Future())
        await sweep.wait(deadline_s)
        return [sweep.answer(place, deadline_s) for place in range(len(calls))]

    def _go(self, sweep: "_Sweep[T]", thread: DeviceThread) -> None:
        try:
            sweep.go()
        finally:
            self._free.append(thread)  # also one that a device kept, when it comes back at last


class _Sweep(Generic[T]):
    def __init__(self, what: str, calls: Calls[T]) -> None:
        self._what = what
        self._calls = calls
        self._futures: list[Future[T | DeviceError]] = [Future() for _ in calls]
        self._begun: set[int] = set()
        self._lock = threading.Lock()
        self._moved_mono = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._answered = asyncio.Event()
        self._missing = len(calls)
        for future in self._futures:
            future.add_done_callback(self._count)

    def go(self) -> None:
        """The sweep itself, in its thread."""
        for place, (thread, call) in enumerate(self._calls):
            if self._take(place):
                thread.make_now(partial(_or_error, call), self._futures[place])

    async def wait(self, deadline_s: float) -> None:
        """Return when every call has answered, or has had its time."""
        while not self._answered.is_set() and (left_s := self._moved_mono + deadline_s - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._answered.wait()
        if not self._answered.is_set():
            await self._rest_at_once(deadline_s)

    def answer(self, place: int, deadline_s: float) -> T | DeviceError:
        """What a call gave; one that has not answered is waited for no longer."""
        thread, future = self._calls[place][0], self._futures[place]
        return future.result() if future.done() else thread.give_up(self._what, future, deadline_s)

    def _take(self, place: int) -> bool:
        """False where somebody else has begun that call."""
        with self._lock:
            if place in self._begun:
                return False
            self._begun.add(place)
            self._moved_mono = time.monotonic()
            return True

    async def _rest_at_once(self, deadline_s: float) -> None:
        rest = [place for place in range(len(self._calls)) if self._take(place)]
        for place in rest:
            thread, call = self._calls[place]
            thread.begin(partial(_or_error, call), self._futures[place])
        if rest:
            await asyncio.wait([asyncio.wrap_future(self._futures[place]) for place in rest], timeout=deadline_s)

    def _count(self, _: "Future[Any]") -> None:
        with self._lock:
            self._missing -= 1
            last = self._missing == 0
        if last:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._answered.set)


def _or_error(call: Callable[[], T]) -> T | DeviceError:
    try:
        return call()
    except DeviceError as error:
        return error
