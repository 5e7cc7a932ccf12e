"""Strict YAML as a tree in which every node knows its line, and every scalar is the text that was written.

YAML's guesses are where policies go wrong (``0123`` a number, ``no`` false, ``12:00`` seven hundred and twenty), so
nothing is guessed: whoever reads the tree says what a text must be. What policy has no use for is refused, with its
line: aliases and anchors (and with them documents that grow when expanded), tags, tabs, several documents, keys given
twice, control characters. The parser's events are read one by one, so that nothing is built before it is allowed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from wattkeeper.errors import ConfigError, Problem
from wattkeeper.system.trust import Trust, UntrustedError, read_trusted
from wattkeeper.text import printable

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufffe\uffff]|\r(?!\n)"
)
_TAB = re.compile(r"^[ ]*\t[ \t]*(?=[^\s])", re.MULTILINE)
_COMPARISON = re.compile(r"[:\[,]\s*[<>!]=?\s*[0-9]")


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar, as written."""

    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Null:
    """Nothing: ``null``, ``~`` or an empty value, without quotes."""

    line: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: "tuple[Node, ...]"
    line: int


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping, in its order, each key once."""

    entries: "tuple[tuple[Text, Node], ...]"
    line: int


Node = Text | Null | Items | Table


def read_text(path: Path, trust: Trust | None = None) -> str:
    """A configuration file's text, at most ``MAX_BYTES`` of UTF-8 (a byte order mark is dropped).

    ``trust``: whose it must be, and who must not be able to change it; None: nobody acts on it as root.
    Raises ``ConfigError`` where it is not such a file, cannot be read, is too big or is not UTF-8.
    """
    file = str(path)
    try:
        if trust is not None:
            data = read_trusted(path, MAX_BYTES, trust)
        else:
            if path.exists() and not path.is_file():
                raise ConfigError((Problem(file, 0, "", "is not a regular file"),))
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
    except UntrustedError as error:
        raise ConfigError((Problem(file, 0, "", error.text),)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError((Problem(file, 0, "", f"cannot be read: {reason}"),)) from error
    if len(data) > MAX_BYTES:
        raise ConfigError((_too_big(file),))
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = f"byte 0x{error.object[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise ConfigError((Problem(file, line, "", text),)) from error


def parse(file: str, text: str) -> tuple[Node | None, tuple[Problem, ...]]:
    """The tree of a document, or None where it is empty, with the problems that leave the rest readable.

    Raises ``ConfigError`` where the text is not YAML of our strict kind. ``file`` is only named in messages.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError((_too_big(file),))
    _refuse_characters(file, text)
    builder = _Builder(file)
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.YAMLError as error:
        raise ConfigError((_syntax(file, text, error),)) from error
    return builder.root, tuple(builder.problems)


def _events(text: str) -> Iterator[Any]:
    """As ``yaml.parse``, without its question before each event whether there is one."""
    loader = _LOADER(text)
    try:
        yield from iter(loader.get_event, None)
    finally:
        loader.dispose()


def _too_big(file: str) -> Problem:
    return Problem(file, 0, "", f"is larger than {MAX_BYTES >> 20} MiB: this is not a policy or settings file")


def _refuse_characters(file: str, text: str) -> None:
    """Raises ``ConfigError`` with the first forbidden characters and tabs."""
    found = [(f.start(), f"control character {printable(f[0])}: remove it") for f in _first(_FORBIDDEN, text)]
    found += [(f.start(), "a tab indents this line: use spaces") for f in _first(_TAB, text)]
    if found:
        raise ConfigError(tuple(Problem(file, _line_at(text, at), "", said) for at, said in sorted(found)))


def _first(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The first hits: as many as anyone would read."""
    return list(islice(pattern.finditer(text), 50))


def _line_at(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _syntax(file: str, text: str, error: yaml.YAMLError) -> Problem:
    """The parser's complaint with its line, and what most likely caused it."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else 0
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    context = getattr(error, "context", None)
    lines = text.split("\n")
    written = lines[line - 1] if 0 < line <= len(lines) else ""
    hint = ""
    if _COMPARISON.search(written):
        hint = ' (put comparisons in quotes: ">=2")'
    elif re.search(r"[:\[,-]\s*\*", written):
        hint = ' (put patterns that begin with * in quotes: "*V100*")'
    return Problem(file, line, "", f"not YAML: {printable(f'{context}, {said}' if context else said)}{hint}")


class _Builder:
    """Takes the parser's events and grows the tree, on a stack of its own: no nesting can exhaust Python's."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []

    def take(self, event: Any) -> None:
        """One event more. Raises ``ConfigError`` for what is refused outright."""
        kind = type(event)
        if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._close()
            return
        line = event.start_mark.line + 1
        if not isinstance(event, yaml.NodeEvent):
            if kind is yaml.DocumentStartEvent and self.root is not None:
                self._refuse(line, "a second document begins here: one file holds one")
            return
        if kind is yaml.AliasEvent:
            self._refuse(
                line, f'aliases are not allowed: put "*{printable(str(event.anchor), 40)}" in quotes if it is a pattern'
            )
        if event.anchor is not None:
            self._refuse(line, f"anchors are not allowed: remove '&{printable(event.anchor, 40)}', or put it in quotes")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._refuse(line, f"tags are not allowed: remove '{printable(tag, 40)}', or put it in quotes")
        if kind is yaml.ScalarEvent:
            self._add(self._scalar(event, line))
            return
        if len(self._stack) >= MAX_DEPTH:
            self._refuse(line, f"nested more than {MAX_DEPTH} deep")
        self._stack.append(_Open(kind is yaml.MappingStartEvent, line, []))

    def _refuse(self, line: int, text: str) -> None:
        raise ConfigError((*self.problems, Problem(self.file, line, "", text)))

    def _scalar(self, event: Any, line: int) -> Node:
        if not event.style and event.value in _NULLS:
            return Null(line)
        if event.style == '"' and _FORBIDDEN.search(event.value):
            shown = printable(event.value, 60)
            self.problems.append(Problem(self.file, line, "", f"control character in '{shown}': remove it"))
            return Text(shown, line)
        return Text(event.value, line)

    def _add(self, node: Node) -> None:
        if self._stack:
            self._stack[-1].children.append(node)
        else:
            self.root = None if isinstance(node, Null) else node

    def _close(self) -> None:
        opened = self._stack.pop()
        if opened.is_table:
            self._add(Table(tuple(self._entries(opened)), opened.line))
        else:
            self._add(Items(tuple(opened.children), opened.line))

    def _entries(self, opened: "_Open") -> Iterator[tuple[Text, Node]]:
        seen: dict[str, int] = {}
        for key, value in zip(opened.children[::2], opened.children[1::2], strict=True):
            if not isinstance(key, Text):
                self.problems.append(Problem(self.file, key.line, "", "a key must be a word"))
            elif key.value in seen:
                text = f"key '{printable(key.value, 60)}' is given twice (first on line {seen[key.value]})"
                self.problems.append(Problem(self.file, key.line, "", text))
            else:
                seen[key.value] = key.line
                yield key, value


@dataclass(frozen=True, slots=True)
class _Open:
    """A list or table whose end is still to come."""

    is_table: bool
    line: int
    children: list[Node]
