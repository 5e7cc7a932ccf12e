"""What strangers can bring about is said, and does not fill the log."""

import logging

import pytest

from wattkeeper.system.sparing import MOST_REMEMBERED, Sparing

log = logging.getLogger("wattkeeper.test")


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def mono(self) -> float:
        return self.now


def test_each_thing_once_and_then_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    sparing = Sparing(log, time.mono, every_s=10)
    said = []
    for second in range(25):
        time.now = second
        said.append(sparing.warn("a", "a knocks"))
    sparing.warn("b", "b knocks")
    assert [second for second, so in enumerate(said) if so] == [0, 10, 20]
    assert caplog.messages == [
        "a knocks",
        "a knocks (9 more times since it was said last)",
        "a knocks (9 more times since it was said last)",
        "b knocks",
    ]


def test_a_crowd_of_different_things_is_held_down_too(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    sparing = Sparing(log, time.mono, every_s=10)
    for number in range(10 * MOST_REMEMBERED):
        sparing.warn(number, f"{number} knocks")
    assert len(caplog.messages) == MOST_REMEMBERED + 1
    time.now = 10
    assert sparing.warn("new", "new knocks"), "those of before are forgotten"
