"""Looking at few of many rules gives what looking at each would give: decisions, errors and warnings."""

import fnmatch
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.property import policies, whens

from wattkeeper.config import checks
from wattkeeper.config.checks import errors_of, warnings_of
from wattkeeper.config.implies import implies, never
from wattkeeper.core.filing import Filing
from wattkeeper.core.match import Matcher, match
from wattkeeper.core.policy import Glob, Policy, Rule, Selector, When
from wattkeeper.core.ramp import next_edge
from wattkeeper.core.request import parse_comment
from wattkeeper.core.resolve import _rule_on, resolve
from wattkeeper.model import Decision, GpuContext, GpuInfo, JobFacts

CONDITIONS = whens.CONDITIONS
many = policies.policies(most=8)
of_few_words = st.builds(
    When,
    st.dictionaries(
        st.sampled_from(["account", "partition", "gpu_model"]),
        st.lists(st.sampled_from(["ab", "AB", "abc", "a*", "*c", "*b*", "*", "[ab]b", "a?c"]), min_size=1, max_size=2),
        min_size=1,
        max_size=2,
    ).map(lambda found: tuple(Selector(name, tuple(map(Glob, texts))) for name, texts in found.items())),
)
crowded = policies.policies(of_few_words | whens.whens, most=8)


def first_of_all(job: JobFacts, gpu: GpuContext, policy: Policy) -> tuple[list[Rule | None], Decision]:
    """The rules that could be first, found by looking at each, and what is decided by these alone."""
    could: list[Rule | None] = []
    for rule in policy.rules:
        value = match(rule.when, job, gpu.info, CONDITIONS).value
        could += [rule] if value is not False else []
        if value is True:
            return could, resolve(job, gpu, policy, CONDITIONS)
    return [*could, None], resolve(job, gpu, policy, CONDITIONS)


@given(policies.jobs(unknown=True), policies.contexts, crowded)
@settings(max_examples=300)
def test_a_decision_is_that_of_looking_at_each_rule(job: JobFacts, gpu: GpuContext, policy: Policy) -> None:
    could, decision = first_of_all(job, gpu, policy)
    asked = parse_comment(job.comment if isinstance(job.comment, str) else None)
    rulings = [_rule_on(rule, asked, gpu, policy) for rule in could]
    least = min(rulings, key=lambda ruling: (ruling.cap_mw is None, ruling.cap_mw or 0))
    assert decision.rule == (least.rule.name if least.rule else None)
    assert (decision.cap_mw, decision.outcome, decision.allowed_mw) == (least.cap_mw, least.outcome, least.allowed_mw)
    assert decision.rule_cap_mw == min((r.rule_cap_mw for r in rulings if r.rule_cap_mw is not None), default=None)
    assert decision.steps[1:] == least.steps[1:]
    assert decision.steps[0].text.startswith(least.steps[0].text)
    assert (f"the lowest of {len(could)} rules" in decision.steps[0].text) is (len(could) > 1)


@given(policies.jobs(unknown=True), policies.contexts, crowded)
def test_time_and_open_fields_are_those_of_looking_at_each_rule(job: JobFacts, gpu: GpuContext, policy: Policy) -> None:
    could, _ = first_of_all(job, gpu, policy)
    alone = Policy(rules=policy.rules)
    until = policy.rules.index(could[-1]) + 1 if could[-1] else len(policy.rules)
    found = [match(rule.when, job, gpu.info, CONDITIONS) for rule in policy.rules[:until]]
    decision = resolve(job, gpu, alone, CONDITIONS)
    assert decision.pending == frozenset[str]().union(*(one.pending for one in found))
    assert decision.next_change == next_edge([s for one in found for s in one.schedules], CONDITIONS)


@given(st.lists(whens.whens, max_size=8), whens.jobs(unknown=True), whens.gpus)
def test_what_is_not_found_does_not_fit(found: list[When], job: JobFacts, gpu: GpuInfo) -> None:
    matcher = Matcher(job, gpu, CONDITIONS)
    filing = Filing(found)
    places = matcher.may_fit(filing)
    assert filing.whens == tuple(found)
    assert places == sorted(set(places))
    for at, when in enumerate(found):
        assert matcher.match(filing.whens[at]) == match(when, job, gpu, CONDITIONS)
        assert at in places or match(when, job, gpu, CONDITIONS).value is False


_patterns = st.text("ab*?[]!-", max_size=6)


@given(st.lists(_patterns, min_size=1, max_size=6), st.text("ab[]!-", max_size=6))
@example(["[ab]", "*[b", "[!a]*b", "*a?", "[]]"], "[b")
@settings(max_examples=1000)
def test_every_pattern_that_fits_a_text_is_found(globs: list[str], text: str) -> None:
    filing = Filing(When((Selector("account", (Glob(glob),)),)) for glob in globs)
    job = JobFacts(whens.KEY, 1000, account=text)
    found = Matcher(job, None, CONDITIONS).may_fit(filing)
    assert {at for at, glob in enumerate(globs) if fnmatch.fnmatchcase(text, glob)} <= set(found)


@given(st.lists(whens.whens, max_size=8), whens.whens)
def test_what_covers_is_found(found: list[When], when: When) -> None:
    places = Filing(found).may_cover(when)
    assert {at for at, other in enumerate(found) if implies(when, other)} <= set(places)


@given(st.lists(_patterns, min_size=1, max_size=6), _patterns)
@settings(max_examples=1000)
def test_every_pattern_that_covers_another_is_found(globs: list[str], glob: str) -> None:
    one, *others = (When((Selector("account", (Glob(text),)),)) for text in (glob, *globs))
    places = Filing(others).may_cover(one)
    assert {at for at, other in enumerate(others) if implies(one, other)} <= set(places)


@given(crowded, st.frozensets(st.integers(0, 7), max_size=2))
@settings(max_examples=300)
def test_errors_and_warnings_are_those_of_comparing_all_with_all(policy: Policy, broken: frozenset[int]) -> None:
    unsound = [id(rule) for at, rule in enumerate(policy.rules) if at in broken]
    errors = [p.text for p in errors_of(policy, lambda part: id(part) not in unsound)]
    assert [text for text in errors if "never" in text] == [
        *_unreachable(policy, lambda rule: id(rule) not in unsound),
        *(checks._NEVER for ceiling in policy.ceilings if never(ceiling.when)),
    ]
    warnings = [p.text for p in warnings_of(policy) if p.text.startswith("gives more power")]
    assert warnings == _more_by_choice(policy)


def _unreachable(policy: Policy, sound: Callable[[Rule], bool]) -> list[str]:
    """Every rule against every earlier one."""
    said = []
    for at, rule in enumerate(policy.rules):
        earlier = [other for other in policy.rules[:at] if sound(other) and implies(rule.when, other.when)]
        if sound(rule) and never(rule.when):
            said.append(checks._NEVER)
        elif sound(rule) and earlier:
            place = f"rule '{earlier[0].name}' ({earlier[0].source})"
            said.append(f"never reached: {place} comes first and fits every job that this rule fits")
    return said


def _more_by_choice(policy: Policy) -> list[str]:
    """Every rule against every later one."""
    said = []
    for at, rule in enumerate(policy.rules):
        fields = sorted(rule.when.fields() & checks.USERS_CHOOSE)
        rest = checks._without_choice(rule.when)
        other = next((found for found in policy.rules[at + 1 :] if implies(rest, found.when)), None)
        if not fields or other is None:
            continue
        top, else_top = checks._top(rule), checks._top(other)
        if top and else_top and checks._surely_more(top, else_top):
            said.append(
                f"gives more power ({top.text}) than rule '{other.name}' ({else_top.text}) on {' and '.join(fields)}, "
                "which users choose themselves"
            )
    return said
