"""Waiting for something or for a time, whichever comes first, as cheaply as the loop can."""

import asyncio


class Bell:
    """One task waits for it, and whoever runs in that task's loop rings it. It stays rung until it is waited for anew.

    ``asyncio.timeout`` around an Event does the same by cancelling the task that waits: half a dozen system calls and
    two exceptions for a time that runs out, which is what a tick does as a rule.
    """

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake whoever waits, or will."""
        self._rung = True
        self._end_wait()

    async def wait(self, seconds: float) -> bool:
        """Whether it was rung since it was last heard, within ``seconds`` seconds from now."""
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._end_wait)
            try:
                await self._waiter
            finally:
                timer.cancel()
        rung, self._rung = self._rung, False
        return rung

    def _end_wait(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
