"""Waiting for something to become true, with the real figure kept for the end of the run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 3  # a loaded machine may take three times the bound; what it really took is always printed


@dataclass(frozen=True)
class Figure:
    what: str
    took_s: float
    bound_s: float

    def __str__(self) -> str:
        verdict = "" if self.took_s <= self.bound_s else "  OVER"
        return f"{self.what}: {self.took_s:.3f} s (bound {self.bound_s:g} s){verdict}"


figures: list[Figure] = []


def record(what: str, took_s: float, bound_s: float) -> Figure:
    """Notes a measured time; fails only beyond three times the bound."""
    figure = Figure(what, took_s, bound_s)
    figures.append(figure)
    print(figure)
    assert took_s <= PATIENCE * bound_s, str(figure)
    return figure


def wait_until(
    predicate: Callable[[], T], bound_s: float, what: str = "", *, every_s: float = 0.02, note: bool = True
) -> T:
    """Waits until the predicate is true and returns what it gave.

    Raises AssertionError after three times the bound. Exceptions of the predicate go through.
    """
    name = what or getattr(predicate, "__name__", "condition")
    start = time.monotonic()
    while True:
        value = predicate()
        took = time.monotonic() - start
        if value:
            if note:
                record(name, took, bound_s)
            return value
        if took > PATIENCE * bound_s:
            raise AssertionError(f"{name}: still not so after {took:.1f} s (bound {bound_s:g} s); last: {value!r}")
        time.sleep(every_s)
