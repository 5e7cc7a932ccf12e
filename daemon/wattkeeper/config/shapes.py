"""Shapes of what may stand in a file, said once: readers take keys, words, forms and bounds from them, and
``config.schema`` makes the JSON Schema of them that editors use.

A shape may let more through than its reader, which knows what else has been written; never less.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """One of some words, as they stand."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A text that is not blank, and all of which has one of the ``forms`` if there are any.

    ``numbers``: the least and the most that it may be where YAML takes it for a number. ``scalar``: it may be anything
    that YAML takes for a number or for true or false, for our readers take it as it was written.
    ``trimmed``: blanks around it do not count. ``allowed`` puts in words what may stand there.
    """

    forms: tuple[re.Pattern[str], ...] = ()
    numbers: tuple[int, int] | None = None
    scalar: bool = False
    trimmed: bool = False
    allowed: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A duration from ``least`` to ``most`` seconds, which ``allowed`` puts in words."""

    least: float
    most: float
    allowed: str

    @property
    def bounds(self) -> tuple[float, float, str]:
        """What ``Walk.duration`` takes."""
        return self.least, self.most, self.allowed


@dataclass(frozen=True, slots=True)
class Nothing:
    """``null``."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A list, which may be empty only where that is said."""

    of: "Kind"
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Either:
    """One of several kinds."""

    kinds: tuple["Kind", ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """A kind by its name, which stands in several places or within itself. ``filled``: with a key at least."""

    name: str
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """A mapping of names of the reader's choice, which have that form, to values of one kind."""

    names: Written
    of: "Kind"


@dataclass(frozen=True, slots=True)
class Key:
    """What a key takes, and what an editor says about it."""

    kind: "Kind"
    about: str


@dataclass(frozen=True, slots=True)
class Shape:
    """A mapping with known keys. ``pairs``: keys that need one another. ``apart``: keys that do not go with the
    others. ``some``: of these keys one must be there."""

    keys: Mapping[str, Key]
    required: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    apart: tuple[str, tuple[str, ...]] | None = None
    some: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Its keys, in the order in which people are told of them."""
        return tuple(self.keys)


Kind = Words | Written | Span | Nothing | Listed | Either | Ref | Named | Shape

TEXT = Written(scalar=True)
"""Any text: ``0123`` and ``no`` are what they look like."""


def one_or_more(kind: Kind) -> Either:
    """One, or a list of them."""
    return Either((kind, Listed(kind)))


def or_nothing(kind: Kind) -> Either:
    """One, or ``null``."""
    return Either((kind, Nothing()))
