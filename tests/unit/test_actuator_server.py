"""What the actuator's server makes of things that are never done with, without a device or a process."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.privileged.server import _OneEach


@contextmanager
def stuck(things: _OneEach, name: str) -> Iterator[None]:
    """Another thread holds it and does not come back."""
    holds, over = threading.Event(), threading.Event()

    def hold() -> None:
        with things.hold(name):
            holds.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(10)
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def test_what_is_never_done_with_is_in_the_way_of_itself_alone() -> None:
    things = _OneEach(3, 0)
    with stuck(things, "process 1"):
        with pytest.raises(DeviceError, match="process 1: what was asked before has not come back") as caught:
            things.hold("process 1").__enter__()
        assert caught.value.kind is Kind.TIMEOUT
        with things.hold("process 2"):
            pass
    with things.hold("process 1"):
        pass


def test_and_a_few_of_them_are_all_there_can_be() -> None:
    things = _OneEach(3, 0)
    with ExitStack() as ended:
        for number in range(3):
            ended.enter_context(stuck(things, f"process {number}"))
        with pytest.raises(DeviceError), things.hold("process 3"):
            pass
    with things.hold("process 3"):
        pass


def test_whoever_waits_gets_its_turn() -> None:
    things = _OneEach(2, 10)
    with stuck(things, "GPU-1"):
        got: list[str] = []

        def ask(name: str) -> None:
            with things.hold(name):
                got.append(name)

        threads = [threading.Thread(target=ask, args=(name,)) for name in ("GPU-1", "GPU-1", "GPU-2")]
        for thread in threads:
            thread.start()
        threads[2].join(10)
        assert got == ["GPU-2"]
        time.sleep(0.05)
        assert got == ["GPU-2"]
    for thread in threads:
        thread.join(10)
    assert sorted(got) == ["GPU-1", "GPU-1", "GPU-2"]


def test_a_failure_leaves_nothing_held() -> None:
    things = _OneEach(1, 0)
    for _ in range(3):
        with pytest.raises(RuntimeError), things.hold("GPU-1"):
            raise RuntimeError
