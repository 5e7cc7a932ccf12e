"""Each target of `make fuzz-input`, on what Hypothesis makes of its seeds; and what the journal says of it."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.__main__ import NAMES, changed
from tests.fuzz.doors import HttpDoors
from tests.fuzz.targets import TARGETS, Target
from tests.property.hostile import harmless


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Seeds changed as the fuzzer changes them, seeds with one piece replaced, and noise."""
    by_chance = st.randoms(use_true_random=False).map(lambda chance: changed(chance, target.seeds, target.words))
    pieces = st.sampled_from(target.words) | st.binary(max_size=20)
    seeds = st.sampled_from(target.seeds)
    spliced = st.builds(lambda a, b, at, piece: a[:at] + piece + b[at:], seeds, seeds, st.integers(0, 400), pieces)
    return by_chance | spliced | st.binary(max_size=200)


def test_every_target_has_a_name() -> None:
    assert tuple(TARGETS) == NAMES


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def test_no_bytes_do_what_they_must_not(target: Target) -> None:
    with ExitStack() as stack:
        throw = target.open(stack)

        @settings(max_examples=150, suppress_health_check=list(HealthCheck))
        @given(inputs(target))
        def meet(raw: bytes) -> None:
            throw(raw)

        for seed in target.seeds:
            throw(seed)
        meet()


@pytest.fixture
def journal() -> Iterator[list[str]]:
    """All that any logger says."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("door", [b"\0", b"\1", b"\2"], ids=["events", "read", "metrics"])
def test_what_is_no_http_is_said_once_and_not_repeated(door: bytes, journal: list[str]) -> None:
    with HttpDoors() as doors:
        for number in range(20):
            doors.throw(door + b"GET / HT\x1b[2J%d\r\n\r\n" % number)
            doors.throw(door + b"GET / HTTP/1.1\r\nContent-Length: owned%d\r\n\r\n" % number)
    assert len(journal) == 1, journal
    assert journal == ["refused a request that is no HTTP"]
    harmless(journal[0])
