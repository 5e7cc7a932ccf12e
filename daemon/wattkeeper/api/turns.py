"""Who asks for much waits for himself: pages that cost the loop something, one after another, with pauses."""

import asyncio


class Turns:
    """One at a time; and after each, nobody for as long as it took. What is done in a turn never waits for long."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._since = 0.0

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        self._since = asyncio.get_running_loop().time()

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(loop.time() - self._since, self._lock.release)
