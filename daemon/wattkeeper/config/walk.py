"""Helpers to read a tree of YAML by a schema: each collects what is wrong, with its line, and goes on.

A reader returns None (or leaves something out) exactly where it has noted a problem, so that one run finds all.
"""

import difflib
from collections.abc import Collection, Iterable, Sequence

from wattkeeper.config.yaml_lines import Items, Node, Null, Table, Text
from wattkeeper.errors import ConfigError, Problem
from wattkeeper.text import printable
from wattkeeper.units import parse_duration

_KIND = {Text: "a text", Null: "nothing", Items: "a list", Table: "a mapping"}


class Walk:
    """Reads nodes of one file. ``problems`` may be shared by the walks of several files."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems

    def error(self, node: Node, path: str, text: str, allowed: str = "") -> None:
        """Note a problem at a node."""
        self.problems.append(Problem(self.file, node.line, path, f"{text} (allowed: {allowed})" if allowed else text))

    def table(
        self, node: Node, path: str, allowed: Sequence[str], required: Sequence[str] = (), refused: Sequence[str] = ()
    ) -> dict[str, tuple[Text, Node]]:
        """The known keys of a mapping with their values; unknown and missing keys are noted.

        ``refused`` keys are given back too, for the caller to say what is wrong with them.
        """
        if not isinstance(node, Table):
            self.error(node, path, f"must be a mapping, not {_KIND[type(node)]}", ", ".join(allowed))
            return {}
        known: dict[str, tuple[Text, Node]] = {}
        for key, value in node.entries:
            if key.value in allowed or key.value in refused:
                known[key.value] = (key, value)
            else:
                unknown = join(path, printable(key.value, 60))
                self.error(key, unknown, f"unknown key{guess(key.value, allowed)}", ", ".join(allowed))
        for name in required:
            if name not in known:
                self.error(node, path, f"'{name}' is missing")
        return known

    def items(self, node: Node, path: str) -> tuple[Node, ...]:
        """The items of a list that is not empty."""
        if not isinstance(node, Items):
            self.error(node, path, f"must be a list, not {_KIND[type(node)]}")
            return ()
        if not node.items:
            self.error(node, path, "is an empty list: leave it out, or put something in")
        return node.items

    def one_or_more(self, node: Node, path: str) -> tuple[Text, ...]:
        """A text, or a list of texts."""
        nodes = self.items(node, path) if isinstance(node, Items) else (node,)
        texts = [found for found in nodes if self.text(found, path) is not None]
        return tuple(found for found in texts if isinstance(found, Text))

    def text(self, node: Node, path: str, allowed: str = "") -> str | None:
        """A text that is not empty."""
        if isinstance(node, Text) and node.value.strip():
            return node.value
        if isinstance(node, (Text, Null)):
            self.error(node, path, "has no value", allowed)
        else:
            self.error(node, path, f"must be a text, not {_KIND[type(node)]}", allowed)
        return None

    def choice(self, node: Node, path: str, allowed: Collection[str]) -> str | None:
        """One of some words."""
        words = ", ".join(allowed)
        text = self.text(node, path, words)
        if text is None or text in allowed:
            return text
        self.error(node, path, f"'{printable(text, 60)}' is not one of these{guess(text, allowed)}", words)
        return None

    def flag(self, node: Node, path: str) -> bool | None:
        """``true`` or ``false``."""
        text = self.choice(node, path, ("true", "false"))
        return None if text is None else text == "true"

    def duration(self, node: Node, path: str, least: float, most: float, allowed: str) -> float | None:
        """A duration in seconds between two bounds, which ``allowed`` puts in words."""
        text = self.text(node, path, allowed)
        if text is None:
            return None
        seconds = parse_duration(text)
        if seconds is None:
            self.error(node, path, f"'{printable(text, 60)}' is not a duration", allowed)
        elif not least <= seconds <= most:
            self.error(node, path, f"'{printable(text, 60)}' is out of bounds", allowed)
        else:
            return seconds
        return None


def raise_if_any(problems: Iterable[Problem]) -> None:
    """Raises ``ConfigError`` with the errors among the problems, in the order of files and lines, if there are any."""
    errors = [problem for problem in problems if not problem.warning]
    if errors:
        order = {file: at for at, file in enumerate(dict.fromkeys(problem.file for problem in errors))}
        raise ConfigError(tuple(sorted(dict.fromkeys(errors), key=lambda p: (order[p.file], p.line))))


def join(path: str, key: str) -> str:
    """``caps[debug]`` and ``when`` make ``caps[debug].when``."""
    return f"{path}.{key}" if path else key


def guess(word: str, allowed: Collection[str]) -> str:
    """``: did you mean 'when'?`` where one of the allowed words is close, else nothing."""
    close = difflib.get_close_matches(word.lower()[:64], allowed, n=1, cutoff=0.6)
    return f": did you mean '{close[0]}'?" if close else ""
