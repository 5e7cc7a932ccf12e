"""``when``: which jobs, nodes and GPUs a rule or ceiling is for."""

from typing import Literal, cast

from wattkeeper.config.policy_shape import COMPARE, COUNT, COUNT_FIELDS, TEXT_FIELDS, WHEN
from wattkeeper.config.schedule import read_schedules
from wattkeeper.config.walk import Walk, join
from wattkeeper.config.yaml_lines import Node, Text
from wattkeeper.core.hostlist import HostlistError, expand
from wattkeeper.core.policy import Compare, Glob, Hosts, Pattern, Selector, When
from wattkeeper.text import printable

_NO_COMMAS = frozenset(TEXT_FIELDS) - {"job_name"}

_Op = Literal["==", "!=", "<", "<=", ">", ">="]


def read_when(walk: Walk, node: Node, path: str) -> When:
    """A ``when`` mapping; what is wrong with it is noted and left out."""
    selectors: list[Selector] = []
    negated: When | None = None
    known = walk.table(node, path, WHEN.names)
    for name, (_, value) in known.items():
        here = join(path, name)
        if name == "schedule":
            schedules = read_schedules(walk, value, here)
            selectors += [Selector(name, schedules)] if schedules else []
        elif name == "not":
            negated = read_when(walk, value, here)
            if not negated.selectors and negated.negated is None and not _entries(value):
                walk.error(value, here, "is empty, so that nothing would ever match: leave it out")
        else:
            patterns = [found for text in walk.one_or_more(value, here) for found in _patterns(walk, name, text, here)]
            if patterns:
                selectors.append(Selector(name, tuple(dict.fromkeys(patterns))))
    return When(tuple(selectors), negated)


def _entries(node: Node) -> int:
    return len(getattr(node, "entries", "x"))


def _patterns(walk: Walk, field: str, text: Text, path: str) -> list[Pattern]:
    value = text.value.strip()
    if field in COUNT_FIELDS:
        return _count(walk, value, text, path)
    if field == "node":
        return _nodes(walk, value, text, path)
    if field in _NO_COMMAS and "," in value:
        walk.error(text, path, f"'{printable(value, 60)}' holds a comma: write a list, [a, b]")
        return []
    return [Glob(value)]


def _count(walk: Walk, value: str, text: Text, path: str) -> list[Pattern]:
    found = COMPARE.fullmatch(value)
    if found is None:
        walk.error(text, path, f"'{printable(value, 60)}' is not a count or comparison", COUNT.allowed)
        return []
    op = found[1] if found[1] not in {"", "="} else "=="
    return [Compare(cast("_Op", op), int(found[2]))]


def _nodes(walk: Walk, value: str, text: Text, path: str) -> list[Pattern]:
    """A hostlist; what has ``*`` or ``?`` in it is a pattern."""
    if "*" in value or "?" in value:
        return [Glob(item.strip()) for item in value.split(",") if item.strip()]
    try:
        return [Hosts(frozenset(expand(value)))]
    except HostlistError as error:
        walk.error(text, path, f"not a hostlist: {printable(str(error))}", "node7, node[1-4,07-10], gpu*")
        return []
