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
from wattkeeper.system.bell import Bell

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
    """Answers by place. Only a call that a device's own thread makes, or that came too late, costs a future."""

    def __init__(self, what: str, calls: Calls[T]) -> None:
        self._what = what
        self._calls = calls
        self._answers: dict[int, T | BaseException] = {}
        self._handed_over: dict[int, Future[T]] = {}
        self._late: dict[int, Future[None]] = {}
        self._begun: set[int] = set()
        self._lock = threading.Lock()
        self._moved_mono = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._answered = Bell()

    def go(self) -> None:
        """The sweep itself, in its thread."""
        for place, (thread, call) in enumerate(self._calls):
            if self._take(place) and not thread.make_now(partial(self._make, place, call)):
                self._hand_over(place)

    async def wait(self, deadline_s: float) -> None:
        """Return when every call has answered, or has had its time."""
        while (left_s := self._moved_mono + deadline_s - time.monotonic()) > 0:
            if await self._answered.wait(left_s):
                return
        await self._rest_at_once(deadline_s)

    def answer(self, place: int, deadline_s: float) -> T | DeviceError:
        """What a call gave; one that has not answered is waited for no longer. Raises what else a call raised."""
        thread = self._calls[place][0]
        with self._lock:
            if place not in self._answers:
                future: Future[Any] | None = self._handed_over.get(place)
                if future is None:
                    future = self._late[place] = Future()
                    future.set_running_or_notify_cancel()  # it was begun in our own thread
                return thread.give_up(self._what, future, deadline_s)
            answer = self._answers[place]
        if isinstance(answer, BaseException) and not isinstance(answer, DeviceError):
            raise answer
        return answer

    def _take(self, place: int) -> bool:
        """False where somebody else has begun that call."""
        with self._lock:
            if place in self._begun:
                return False
            self._begun.add(place)
            self._moved_mono = time.monotonic()
            return True

    async def _rest_at_once(self, deadline_s: float) -> None:
        rest = [self._hand_over(place) for place in range(len(self._calls)) if self._take(place)]
        if rest:
            await asyncio.wait([asyncio.wrap_future(future) for future in rest], timeout=deadline_s)

    def _hand_over(self, place: int) -> "Future[T]":
        """Have the device's own thread make the call."""
        thread, call = self._calls[place]
        future: Future[T] = Future()
        with self._lock:
            self._handed_over[place] = future
        future.add_done_callback(partial(self._take_back, place))
        thread.begin(call, future)
        return future

    def _take_back(self, place: int, done: "Future[T]") -> None:
        if not done.cancelled():
            self._note(place, done.exception() or done.result())

    def _make(self, place: int, call: Callable[[], T]) -> None:
        try:
            self._note(place, call())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the call
            self._note(place, error)

    def _note(self, place: int, answer: T | BaseException) -> None:
        with self._lock:
            self._answers[place] = answer
            last = len(self._answers) == len(self._calls)
            late = self._late.get(place)
        if late is not None:
            late.set_result(None)
        if last:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._answered.ring)
