"""Writing to the ledger while its disk fails and hangs: no job's total is lost, and nobody waits for long."""

import asyncio

import pytest
from tests.unit.ledger_agent import A, Disk, FakeClock, Meter, key, troubles

from wattkeeper.agent.ledger import MOST_WAITING, QUIET_WRITE_S, LedgerWriter


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def meter(disk: Disk, clock: FakeClock) -> Meter:
    return Meter(LedgerWriter(disk, clock=clock), clock)


def test_a_full_disk_is_told_once_and_nothing_is_lost(
    meter: Meter, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        await meter.start()
        disk.full = True
        assert [await meter.tick() for _ in range(3)] == [False] * 3
        assert meter.writer.alarm == (
            "the ledger cannot be written, going on in memory: state.db: no space left; make room"
        )
        disk.full = False
        assert await meter.tick()
        assert meter.writer.alarm is None

    asyncio.run(scene())
    assert disk.load().usage[key(), A].energy_mj == 400
    assert len(troubles(caplog)) == 2
    assert "no space left" in troubles(caplog)[0]
    assert "nothing that waited was lost" in troubles(caplog)[1]


def test_quiet_ticks_are_written_together_and_soon(meter: Meter, disk: Disk) -> None:
    async def scene() -> None:
        await meter.start()
        for _ in range(20):
            await meter.quiet_tick()

    asyncio.run(scene())
    assert disk.commits == 1 + 20 // QUIET_WRITE_S
    assert disk.load().usage[key(), A].energy_mj == meter.counter_mj
    assert disk.load().watermarks[A].sample.energy_mj == meter.counter_mj


def test_an_end_takes_what_waited_with_it(meter: Meter, disk: Disk) -> None:
    async def scene() -> None:
        await meter.start()
        await meter.quiet_tick()
        await meter.quiet_tick()
        await meter.end()

    asyncio.run(scene())
    assert disk.load().usage[key(), A].energy_mj == 300
    assert set(disk.load().over) == {key()}


def test_what_waited_is_written_when_the_agent_stops(meter: Meter, disk: Disk) -> None:
    async def scene() -> None:
        await meter.start()
        await meter.quiet_tick()

    asyncio.run(scene())
    written: list[int] = []
    disk.close = lambda: written.append(disk.load().usage[key(), A].energy_mj)  # type: ignore[method-assign]
    meter.writer.close()
    assert written == [100]


def test_a_disk_on_the_brink_is_told_of_every_ten_minutes(
    meter: Meter, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        await meter.start()
        for number in range(120):
            disk.full = number % 2 == 0
            assert await meter.tick(seconds=10.0) is not disk.full

    asyncio.run(scene())
    assert len([text for text in troubles(caplog) if "no space left" in text]) == 2
    assert disk.load().usage[key(), A].energy_mj == 12_000


def test_days_of_a_full_disk_hold_little_memory_and_lose_nothing(meter: Meter, disk: Disk) -> None:
    async def scene() -> None:
        disk.full = True
        await meter.start()
        for _ in range(5_000):
            await meter.tick(seconds=60.0)
        await meter.end()
        assert len(meter.writer._waiting) <= MOST_WAITING
        disk.full = False
        assert await meter.start(2)

    asyncio.run(scene())
    kept = disk.load()
    assert (kept.usage[key(), A].energy_mj, kept.usage[key(), A].held_ns) == (500_100, 5_001 * 10**9)
    assert kept.accounts_mj["physics", ""] == 500_100
    assert set(kept.over) == {key()}
    assert [h.job.key for h in kept.holdings] == [key(2)]
    assert kept.watermarks[A].sample.energy_mj == meter.counter_mj


def test_an_answer_that_got_lost_counts_nothing_twice(meter: Meter, disk: Disk) -> None:
    async def scene() -> None:
        await meter.start()
        disk.forgets_to_answer = True
        assert not await meter.tick()
        assert await meter.tick()

    asyncio.run(scene())
    assert disk.load().usage[key(), A].energy_mj == 200


def test_a_disk_that_hangs_makes_one_caller_wait_and_no_more(
    meter: Meter, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        await meter.start()
        monkeypatch.setattr("wattkeeper.agent.ledger.COMMIT_DEADLINE_S", 0.1)
        disk.free.clear()
        assert not await meter.tick()
        assert "commit did not return in 0.1 s" in str(meter.writer.trouble)
        begun = asyncio.get_running_loop().time()
        assert [await meter.tick() for _ in range(100)] == [False] * 100
        assert asyncio.get_running_loop().time() - begun < 0.1 * 100 / 2  # not a deadline each
        disk.free.set()
        while meter.writer._thread.stalled:  # noqa: ASYNC110 - nothing tells when a thread is free
            await asyncio.sleep(0.01)
        monkeypatch.setattr("wattkeeper.agent.ledger.COMMIT_DEADLINE_S", 10.0)  # a disk that is free may be slow
        assert await meter.tick()

    asyncio.run(scene())
    assert disk.load().usage[key(), A].energy_mj == 102 * 100


def test_closing_writes_what_waits(meter: Meter, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "close", lambda: None)

    async def scene() -> None:
        await meter.start()
        disk.full = True
        await meter.tick()
        disk.full = False
        meter.writer.close()

    asyncio.run(scene())
    assert disk.load().usage[key(), A].energy_mj == 100


def test_closing_says_what_is_lost(meter: Meter, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        await meter.start()
        disk.full = True
        for _ in range(50):
            await meter.tick()
        meter.writer.close()

    asyncio.run(scene())
    assert "50 changes with 5 J of 1 jobs are lost with this process: state.db: no space left" in caplog.text
