"""The machine's clocks."""

import asyncio
import time
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def read_boot_id() -> str:
    """The kernel's id of this boot: a UUID that changes at every boot (random(4))."""
    return BOOT_ID.read_text().strip()


class SystemClock:
    """The ``Clock`` of real life. Monotonic time is CLOCK_BOOTTIME's, so that a suspended node's timers still run."""

    def wall(self) -> float:
        return time.time()

    def mono(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return read_boot_id()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
