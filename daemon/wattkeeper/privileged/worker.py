"""One daemon thread that makes all calls on one device, in order.

A driver call can hang for ever. Then this device's queue stands still and its callers run into their deadlines,
while the loop and every other device go on.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from wattkeeper.privileged.errors import DeviceError, Kind

T = TypeVar("T")


class DeviceThread:
    """Runs calls one at a time. ``on_late`` is called, in the thread, when a call returns after its deadline."""

    def __init__(self, device: str, on_late: Callable[[], None] = lambda: None) -> None:
        self.device = device
        self._on_late = on_late
        # not a Condition: that wakes the thread twice, the second time for a lock that the loop still holds
        self._queue: SimpleQueue[tuple[Callable[[], object], Future[Any]]] = SimpleQueue()
        self._newest: dict[str, Future[Any]] = {}
        self._overdue: Future[Any] | None = None
        threading.Thread(target=self._serve, name=f"device-{device[-12:]}", daemon=True).start()

    @property
    def stalled(self) -> bool:
        """True while a call is out that has not come back by its deadline."""
        return self._overdue is not None and not self._overdue.done()

    async def run(self, what: str, call: Callable[[], T], deadline_s: float, *, replaces: bool = False) -> T:
        """Make ``call`` in the thread and give what it gives, or raises.

        ``replaces``: an earlier call of the same ``what`` that still waits is dropped, its caller gets REPLACED.
        Raises DeviceError (TIMEOUT) when it is not done in ``deadline_s`` seconds: a call that has not begun by
        then is never made, one that has begun is left to finish.
        """
        future: Future[T] = Future()
        if replaces:
            if what in self._newest:
                self._newest[what].cancel()  # does nothing to one that has begun
            self._newest[what] = future
        self.begin(call, future)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise self.give_up(what, future, deadline_s) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() and not (task and task.cancelling()):
                raise DeviceError(Kind.REPLACED, self.device, f"{what} gave way to a newer one") from None
            raise

    def begin(self, call: Callable[[], T], future: "Future[T]") -> None:
        """Put a call at the end of the queue; ``future`` gets what comes of it."""
        self._queue.put((call, future))

    def give_up(self, what: str, future: "Future[Any]", deadline_s: float) -> DeviceError:
        """Wait no longer for a call: one that has not begun is never made, one that has makes this device stalled."""
        if not future.cancel():
            self._overdue = future
            future.add_done_callback(lambda _: self._on_late())
        return DeviceError(Kind.TIMEOUT, self.device, f"{what} did not return in {deadline_s:g} s")

    def _serve(self) -> None:
        while True:
            call, future = self._queue.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the call
                future.set_exception(error)


class Relay(Generic[T]):
    """One call on each of several devices, one after the other, each in its own device's thread.

    One after the other, because a driver has one lock and Python another, and threads that queue for both cost more
    than the calls. From thread to thread, because waking the loop in between costs as much again.
    """

    def __init__(self, what: str, calls: Sequence[tuple[DeviceThread, Callable[[], T]]]) -> None:
        self._what = what
        self._calls = calls
        self._futures: list[Future[T | DeviceError]] = [Future() for _ in calls]
        self._begun: set[int] = set()
        self._moved_mono = time.monotonic()
        self._lock = threading.Lock()

    async def run(self, deadline_s: float) -> list[T | DeviceError]:
        """What each call gives, in their order; a DeviceError in the place of one that raised it or came too late.

        Each has ``deadline_s`` seconds. Once one was late the rest are made all at once: one deadline for all.
        """
        if not self._calls:
            return []
        self._begin(0)
        last = asyncio.wrap_future(self._futures[-1])
        while not last.done() and (left_s := self._moved_mono + deadline_s - time.monotonic()) > 0:
            await asyncio.wait([last], timeout=left_s)
        if not last.done():
            await self._begin_all(deadline_s)
        return [self._answer(place, deadline_s) for place in range(len(self._calls))]

    def _begin(self, place: int) -> None:
        with self._lock:
            if place in self._begun:
                return
            self._begun.add(place)
            self._moved_mono = time.monotonic()
        thread, call = self._calls[place]
        if place + 1 < len(self._calls):
            self._futures[place].add_done_callback(lambda _: self._begin(place + 1))
        thread.begin(lambda: _or_error(call), self._futures[place])

    async def _begin_all(self, deadline_s: float) -> None:
        late = next((place for place, future in enumerate(self._futures) if not future.done()), len(self._futures))
        rest = range(late + 1, len(self._futures))
        for place in rest:
            self._begin(place)
        if rest:
            await asyncio.wait([asyncio.wrap_future(self._futures[place]) for place in rest], timeout=deadline_s)

    def _answer(self, place: int, deadline_s: float) -> T | DeviceError:
        thread, future = self._calls[place][0], self._futures[place]
        return future.result() if future.done() else thread.give_up(self._what, future, deadline_s)


def _or_error(call: Callable[[], T]) -> T | DeviceError:
    try:
        return call()
    except DeviceError as error:
        return error
