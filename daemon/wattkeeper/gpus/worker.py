"""One daemon thread for the calls on one device, in order and never two at a time.

A driver call can hang for ever. Then this device's queue stands still and its callers run into their deadlines,
while the loop and every other device go on.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from wattkeeper.privileged.errors import DeviceError, Kind

T = TypeVar("T")


class DeviceThread:
    """Runs calls one at a time. ``on_late`` is called, in the thread, when a call returns after its deadline."""

    def __init__(self, device: str, on_late: Callable[[], None] = lambda: None) -> None:
        self.device = device
        self._on_late = on_late
        # not a Condition: that wakes the thread twice, the second time for a lock that the loop still holds
        self._queue: SimpleQueue[tuple[Callable[[], object], Future[Any]]] = SimpleQueue()
        self._device = threading.Lock()  # held by whoever makes a call on the device
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
            work = self._queue.get()
            with self._device:
                _make(*work)

    def make_now(self, call: Callable[[], None]) -> bool:
        """Make a call here, in the caller's thread; False, and it is not made, where somebody talks to the device."""
        if not self._device.acquire(blocking=False):
            return False
        try:
            call()
        finally:
            self._device.release()
        return True


def _make(call: Callable[[], T], future: "Future[T]") -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the call
        future.set_exception(error)
