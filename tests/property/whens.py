"""Strategies for ``when`` and for jobs, over words so few that they often meet."""

import dataclasses
import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from wattkeeper.core.policy import Compare, Glob, Hosts, Pattern, Selector, When
from wattkeeper.core.schedule import Schedule
from wattkeeper.model import UNKNOWN, Conditions, GpuInfo, GpuUuid, JobFacts, JobKey
from wattkeeper.units import Milliwatts

CONDITIONS = Conditions(now_at=0.0)
KEY = JobKey("c", 1, "r0")
MODELS = ("Tesla V100-PCIE-16GB", "NVIDIA A100-SXM4-40GB")
VALUES: dict[str, tuple[str | None, ...]] = {
    "user": (None, "ab", "abc", "b"),
    "account": (None, "ab", "b"),
    "partition": ("ab", "abc", "B"),
    "qos": (None, "ab", "abc"),
    "job_name": (None, "ab", "cab"),
    "constraint": (None, "ab", "ab&b", "[abc*2|b]"),
}
GROUPS = (frozenset[str](), frozenset({"ab"}), frozenset({"b", "abc"}))
COUNTS = (0, 1, 2, 3, 8)
NODES = ("n1", "n2", "n10")

SCHEDULES = (Schedule(days=frozenset({3})), Schedule(days=frozenset({4})), Schedule(hours=((0, 720),)))
"""The first moment of 1970 was a Thursday's midnight: the first and the last of them held."""

_globs = st.sampled_from(["ab", "abc", "b", "a*", "ab*", "*", "?b", "*c", "[ab]*", "**", "a?*"])
_ops = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def _patterns(field: str) -> st.SearchStrategy[Pattern]:
    if field in {"gpus", "num_nodes"}:
        return st.builds(Compare, _ops, st.integers(0, 4))
    if field == "node":
        hosts = st.frozensets(st.sampled_from(NODES), min_size=1).map(Hosts)
        return hosts | st.sampled_from(["n*", "n1*", "n1", "*"]).map(Glob)
    if field == "schedule":
        return st.sampled_from(SCHEDULES)
    if field == "gpu_model":
        return st.sampled_from(["*V100*", "*a100*", "*", "tesla*", MODELS[0]]).map(Glob)
    return _globs.map(Glob)


def _selector(field: str) -> st.SearchStrategy[Selector]:
    patterns = st.lists(_patterns(field), min_size=1, max_size=3, unique=True).map(tuple)
    return st.builds(Selector, st.just(field), patterns)


_FIELDS = (*VALUES, "group", "gpus", "num_nodes", "node", "gpu_model", "schedule")
_selectors = (
    st.lists(st.sampled_from(_FIELDS), max_size=3, unique=True)
    .flatmap(lambda fields: st.tuples(*map(_selector, fields)))
    .map(tuple)
)
whens: st.SearchStrategy[When] = st.recursive(
    st.builds(When, _selectors), lambda inner: st.builds(When, _selectors, st.none() | inner), max_leaves=3
)


def _values(field: str, *, unknown: bool) -> st.SearchStrategy[object]:
    known = st.sampled_from(VALUES[field])
    return known | st.just(UNKNOWN) if unknown else known


def jobs(*, unknown: bool) -> st.SearchStrategy[JobFacts]:
    """Jobs; with ``unknown`` some of their fields are not yet known."""
    numbers: st.SearchStrategy[object] = st.sampled_from((None, *COUNTS))
    groups: st.SearchStrategy[object] = st.sampled_from(GROUPS)
    return st.builds(
        JobFacts,
        key=st.just(KEY),
        uid=st.just(1000),
        gpus=st.sampled_from(COUNTS),
        num_nodes=(numbers | st.just(UNKNOWN) if unknown else numbers),
        node=st.sampled_from(NODES),
        groups=(groups | st.just(UNKNOWN) if unknown else groups),
        **{field: _values(field, unknown=unknown) for field in VALUES},
    )


gpus = st.builds(
    GpuInfo,
    uuid=st.just(GpuUuid("GPU-1")),
    minor=st.just(0),
    index=st.just(0),
    model=st.sampled_from(MODELS),
    default_mw=st.just(Milliwatts(250_000)),
    min_mw=st.just(Milliwatts(100_000)),
    max_mw=st.just(Milliwatts(250_000)),
)


def field_of(job: JobFacts, name: str) -> object:
    """The value of a selector's field."""
    return getattr(job, "groups" if name == "group" else name, None)


MOST_COMPLETIONS = 300


def completions(job: JobFacts, fields: frozenset[str]) -> Iterator[JobFacts]:
    """The job with every combination of values that could still become known for those fields; of very many, some."""
    open_fields = ["groups" if name == "group" else name for name in sorted(fields) if field_of(job, name) is UNKNOWN]
    choices = [_endings(name) for name in open_fields]
    if math.prod(map(len, choices)) <= MOST_COMPLETIONS:
        found = itertools.product(*choices)
    else:
        chance = random.Random(0)  # noqa: S311
        found = (tuple(map(chance.choice, choices)) for _ in range(MOST_COMPLETIONS))  # type: ignore[assignment]
    for values in found:
        known: dict[str, Any] = dict(zip(open_fields, values, strict=True))
        yield dataclasses.replace(job, **known)


def _endings(name: str) -> tuple[object, ...]:
    if name == "groups":
        return (*GROUPS, frozenset({"zzz"}))
    return (None, *COUNTS) if name == "num_nodes" else (*VALUES[name], None, "zzz")
