"""Baselines that are never overwritten, and threads that a hung driver cannot take the agent down with."""

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest

from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.privileged.baselines import Baselines
from wattkeeper.privileged.errors import DeviceError, Kind

GPU = "GPU-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "baseline"


def test_a_baseline_is_written_once(folder: Path) -> None:
    baselines = Baselines(folder, "boot-1")
    assert baselines.load_mw(GPU) is None
    assert baselines.save_mw(GPU, 500_000) == 500_000
    assert baselines.save_mw(GPU, 250_000) == 500_000
    assert Baselines(folder, "boot-1").load_mw(GPU) == 500_000
    assert [file.name for file in folder.iterdir()] == [f"{GPU}.json"]


def test_a_baseline_that_somebody_saved_meanwhile_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def beaten(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        target.write_text(json.dumps({"limit_mw": 600_000, "boot_id": "boot-1"}))
        link(source, target)

    monkeypatch.setattr(os, "link", beaten)
    assert Baselines(folder, "boot-1").save_mw(GPU, 250_000) == 600_000


def test_a_baseline_of_another_boot_is_forgotten_with_its_mark(folder: Path) -> None:
    before = Baselines(folder, "boot-1")
    before.save_mw(GPU, 500_000)
    before.claim(GPU)
    after = Baselines(folder, "boot-2")
    assert not after.owned(GPU)
    assert after.load_mw(GPU) is None
    assert after.save_mw(GPU, 700_000) == 700_000


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"limit_mw": "x", "boot_id": "boot-1"}', '{"boot_id": "b"}']
)
def test_a_file_that_cannot_be_read_is_named_and_kept(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    file = folder / f"{GPU}.json"
    file.write_text(content)
    baselines = Baselines(folder, "boot-1")
    named = rf"baseline file {file} is unreadable .*; remove it if"
    with pytest.raises(DeviceError, match=named) as caught:
        baselines.load_mw(GPU)
    assert caught.value.kind is Kind.STATE
    with pytest.raises(DeviceError, match=named):
        baselines.save_mw(GPU, 250_000)
    assert file.read_text() == content


def test_a_baseline_that_cannot_be_saved_is_an_error_that_leaves_nothing(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    with pytest.raises(
        DeviceError, match=r"could not be put back|is unreadable|no folder that its owner alone"
    ) as caught:
        Baselines(folder, "boot-1").save_mw(GPU, 250_000)
    assert caught.value.kind is Kind.STATE


def test_on_a_full_disk_no_half_baseline_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeviceError, match=r"cannot save its baseline .*No space left") as caught:
        Baselines(folder, "boot-1").save_mw(GPU, 250_000)
    assert caught.value.kind is Kind.STATE
    assert list(folder.iterdir()) == []


def test_the_file_says_what_it_is(folder: Path) -> None:
    Baselines(folder, "boot-1").save_mw(GPU, 250_000)
    saved = json.loads((folder / f"{GPU}.json").read_text())
    assert saved == {"uuid": GPU, "limit_mw": 250_000, "boot_id": "boot-1"}


def test_what_is_claimed_is_ours_until_released(folder: Path) -> None:
    baselines = Baselines(folder, "boot-1")
    baselines.save_mw(GPU, 250_000)
    assert not baselines.owned(GPU)
    baselines.claim(GPU)
    assert Baselines(folder, "boot-1").owned(GPU)
    baselines.release(GPU)
    baselines.release(GPU)
    assert not baselines.owned(GPU)


def stalled(thread: DeviceThread) -> bool:
    return thread.stalled


def test_calls_are_made_in_order_in_one_thread() -> None:
    async def scene() -> None:
        thread = DeviceThread(GPU)
        made: list[int] = []
        names: set[str] = set()

        def call(number: int) -> int:
            made.append(number)
            names.add(threading.current_thread().name)
            return number

        results = await asyncio.gather(*(thread.run("x", lambda n=n: call(n), 5.0) for n in range(20)))  # type: ignore[misc]
        assert results == made == list(range(20))
        assert len(names) == 1
        assert threading.current_thread().name not in names

    asyncio.run(scene())


def test_what_a_call_raises_its_caller_gets_and_the_next_goes_on() -> None:
    async def scene() -> None:
        thread = DeviceThread(GPU)
        with pytest.raises(ZeroDivisionError):
            await thread.run("x", lambda: 1 // 0, 5.0)
        assert await thread.run("x", lambda: 7, 5.0) == 7

    asyncio.run(scene())


def test_a_hung_call_costs_its_caller_the_deadline_and_is_told_when_it_returns() -> None:
    async def scene() -> None:
        late, hang = threading.Event(), threading.Event()
        thread = DeviceThread(GPU, late.set)
        with pytest.raises(DeviceError, match=r"GPU-1: set_limit did not return in 0\.05 s") as caught:
            await thread.run("set_limit", hang.wait, 0.05)
        assert caught.value.kind is Kind.TIMEOUT
        assert stalled(thread)
        assert not late.is_set()
        never = threading.Event()
        with pytest.raises(DeviceError):
            await thread.run("read", never.set, 0.05)
        assert stalled(thread)
        hang.set()
        assert await asyncio.to_thread(late.wait, 5.0)
        assert await thread.run("read", lambda: 7, 5.0) == 7
        assert not stalled(thread)
        assert not never.is_set()  # what had not begun by its deadline is never made

    asyncio.run(scene())


def test_only_the_newest_of_waiting_targets_is_set() -> None:
    async def scene() -> None:
        thread = DeviceThread(GPU)
        begun, hang = threading.Event(), threading.Event()
        made: list[str] = []

        def first() -> None:
            begun.set()
            hang.wait(5.0)

        running = asyncio.create_task(thread.run("set_limit", first, 5.0, replaces=True))
        assert await asyncio.to_thread(begun.wait, 5.0)
        tasks = []
        for name in ("old", "new"):
            task = thread.run("set_limit", lambda name=name: made.append(name), 5.0, replaces=True)  # type: ignore[misc]
            tasks.append(asyncio.create_task(task))
            await asyncio.sleep(0)
        other = asyncio.create_task(thread.run("read", lambda: made.append("read"), 5.0))
        with pytest.raises(DeviceError, match="gave way to a newer one") as caught:
            await tasks[0]
        assert caught.value.kind is Kind.REPLACED
        hang.set()
        await asyncio.gather(running, tasks[1], other)
        assert made == ["new", "read"]

    asyncio.run(scene())


def test_a_caller_that_is_cancelled_is_cancelled_not_replaced() -> None:
    async def scene() -> None:
        thread = DeviceThread(GPU)
        hang = threading.Event()
        running = asyncio.create_task(thread.run("read", lambda: hang.wait(5.0), 5.0))
        waiting = asyncio.create_task(thread.run("read", lambda: None, 5.0))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        hang.set()
        assert await running

    asyncio.run(scene())
