"""Waiting for a ring or for a time."""

import asyncio
import time
from collections.abc import Coroutine

import pytest

from wattkeeper.system.bell import Bell

LONG_S = 60.0


def within_s(work: Coroutine[None, None, bool]) -> tuple[bool, float]:
    begun = time.monotonic()
    return asyncio.run(work), time.monotonic() - begun


def test_a_ring_ends_the_wait() -> None:
    async def scene() -> bool:
        bell = Bell()
        asyncio.get_running_loop().call_later(0.02, bell.ring)
        return await bell.wait(LONG_S)

    rung, took = within_s(scene())
    assert rung
    assert took < LONG_S / 2


def test_time_runs_out() -> None:
    rung, took = within_s(_silence(0.05))
    assert not rung
    assert took >= 0.05


def test_no_time_is_no_wait() -> None:
    assert within_s(_silence(0.0))[0] is False


async def _silence(seconds: float) -> bool:
    return await Bell().wait(seconds)


def test_a_ring_before_the_wait_is_heard_once() -> None:
    async def scene() -> list[bool]:
        bell = Bell()
        bell.ring()
        bell.ring()
        return [await bell.wait(LONG_S), await bell.wait(0.01)]

    assert asyncio.run(scene()) == [True, False]


def test_a_wait_that_is_cancelled_takes_no_ring_with_it() -> None:
    async def scene() -> bool:
        bell = Bell()
        waiting = asyncio.create_task(bell.wait(LONG_S))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        bell.ring()
        return await bell.wait(LONG_S)

    assert asyncio.run(scene())


def test_a_timer_of_an_earlier_wait_ends_no_later_one() -> None:
    async def scene() -> tuple[bool, float]:
        bell = Bell()
        bell.ring()
        await bell.wait(0.01)
        asyncio.get_running_loop().call_soon(bell.ring)
        await bell.wait(0.01)
        begun = time.monotonic()
        rung = await bell.wait(0.1)
        return rung, time.monotonic() - begun

    rung, took = asyncio.run(scene())
    assert not rung
    assert took >= 0.1
