"""Any text is a policy or an error that names what is wrong; and a rule that is called unreachable is."""

import dataclasses
import itertools
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.whens import CONDITIONS, gpus, jobs, whens

from wattkeeper.config.implies import implies, never
from wattkeeper.config.policy import parse_policies
from wattkeeper.config.settings import Settings, parse_settings
from wattkeeper.core.match import match
from wattkeeper.core.policy import Compare, Glob, Policy, Selector, When
from wattkeeper.errors import ConfigError
from wattkeeper.model import GpuInfo, GpuUuid, JobFacts, JobKey
from wattkeeper.units import Milliwatts

_words = st.sampled_from(
    [
        "version",
        "caps",
        "name",
        "when",
        "cap",
        "requests",
        "min",
        "max",
        "eco",
        "profiles",
        "not",
        "gpus",
        "node",
        "model",
        "ceilings",
        "idle",
        "1",
        "250W",
        "70%",
        ">=2",
        "n[1-3]",
        "*",
        "baseline",
        "null",
        "~",
        "",
        "mode",
        "observe",
        "&a",
        "*a",
        "!x",
        "metrics",
        "slurm",
        "listen",
        "map",
        "include",
        "interval",
        "5s",
        "0",
        "true",
        "ramp",
        "schedule",
    ]
)
_trees: st.SearchStrategy[object] = st.recursive(
    _words, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words, inner, max_size=5), max_leaves=12
)


def _flow(tree: object, *, quote: bool) -> str:
    """A tree as YAML in flow style, its words in quotes or bare."""
    if isinstance(tree, dict):
        pairs = (f"{_flow(key, quote=quote)}: {_flow(value, quote=quote)}" for key, value in tree.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(_flow(item, quote=quote) for item in tree) + "]"
    return f'"{tree}"' if quote else str(tree)


_yaml_like = st.builds(lambda tree, quote: _flow(tree, quote=quote), _trees, st.booleans())
_structured = st.builds(
    lambda rules, quote: "version: 1\ncaps: " + _flow(rules, quote=quote),
    st.lists(
        st.fixed_dictionaries(
            {"name": _words, "cap": _trees}, optional={"when": _trees, "requests": _trees, "mode": _words}
        ),
        max_size=4,
    ),
    st.booleans(),
)
_noise = st.text(string.printable, max_size=80) | st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
texts = _yaml_like | _structured | _noise


@given(st.lists(texts, max_size=3))
@settings(max_examples=300)
def test_any_text_is_a_policy_or_a_config_error(files: list[str]) -> None:
    try:
        policy, warnings = parse_policies([(f"{at}.yaml", text) for at, text in enumerate(files)])
    except ConfigError as error:
        assert error.problems
        assert all(problem.file.endswith(".yaml") and problem.text for problem in error.problems)
        assert str(error).replace("\n", "").isprintable()
    else:
        assert isinstance(policy, Policy)
        assert all(problem.warning for problem in warnings)


@given(texts)
@settings(max_examples=300)
def test_any_text_is_settings_or_a_config_error(text: str) -> None:
    try:
        assert isinstance(parse_settings("s.yaml", text), Settings)
    except ConfigError as error:
        assert error.problems


@given(whens, whens, jobs(unknown=False), gpus)
@settings(max_examples=500)
def test_a_rule_called_unreachable_is(left: When, right: When, job: JobFacts, gpu: GpuInfo) -> None:
    if implies(left, right) and match(left, job, gpu, CONDITIONS).value:
        assert match(right, job, gpu, CONDITIONS).value
    if never(left):
        assert not match(left, job, gpu, CONDITIONS).value


@given(whens, jobs(unknown=False), gpus)
def test_every_when_implies_itself_and_the_catch_all(when: When, job: JobFacts, gpu: GpuInfo) -> None:
    assert implies(when, when)
    assert implies(when, When())
    assert implies(When(when.selectors, when.negated), When(when.selectors[:1]))


_GLOBS = ["ab", "abc", "b", "a*", "ab*", "*", "?b", "*c", "[ab]*", "**", "a?*", "*b*", "", "[", "[!a]b", "a*c", "*\n"]
_NAMES = ["", "a", "ab", "abc", "b", "cb", "ac", "[", "[ab]b", "\n", "AB", "a*", "abbc"]
_PAIRS = [(one, two) for one in _GLOBS for two in _GLOBS]


@pytest.mark.parametrize("field", ["user", "constraint", "gpu_model", "node"])
def test_patterns_that_cover_others_do(field: str) -> None:
    """Every pair of patterns, alone and two by two, against every name."""
    jobs_of = {name: _job(field, name) for name in _NAMES}
    proven = 0
    for patterns, by in itertools.product(_PAIRS[::3], repeat=2):
        left, right = _globs(field, patterns), _globs(field, by)
        if not implies(left, right):
            continue
        proven += 1
        for name, (job, gpu) in jobs_of.items():
            if match(left, job, gpu, CONDITIONS).value:
                assert match(right, job, gpu, CONDITIONS).value, (patterns, by, name)
    assert proven > len(_PAIRS)


def test_comparisons_that_cover_others_do() -> None:
    comparisons = [Compare(op, number) for op in ("==", "!=", "<", "<=", ">", ">=") for number in (0, 1, 3)]
    for a, b, c in itertools.product(comparisons, repeat=3):
        left, right = When((Selector("gpus", (a,)),)), When((Selector("gpus", (b, c)),))
        fits = [
            match(left, job, None, CONDITIONS).value and not match(right, job, None, CONDITIONS).value
            for job in (dataclasses.replace(_job("user", "x")[0], gpus=gpus) for gpus in range(-2, 8))
        ]
        assert implies(left, right) is not any(fits)


def _globs(field: str, patterns: tuple[str, ...]) -> When:
    return When((Selector(field, tuple(map(Glob, patterns))),))


def _job(field: str, name: str) -> tuple[JobFacts, GpuInfo]:
    limit = Milliwatts(250_000)
    job = JobFacts(
        key=JobKey("c", 1, "r0"),
        uid=1,
        user=name if field == "user" else None,
        constraint=name if field == "constraint" else None,
        node=name if field == "node" else "",
    )
    return job, GpuInfo(GpuUuid("GPU-1"), 0, 0, name if field == "gpu_model" else "", limit, limit, limit)
