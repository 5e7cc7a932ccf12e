"""What policy says one job gets on one GPU: the first two stages, rule and request.

Sharing, ceilings and the device's range follow in ``arbitrate``, because they concern the GPU as a whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from wattkeeper.core.amounts import amount_mw, cap_mw, describe_cap, highest_mw
from wattkeeper.core.match import Matcher, selects_jobs
from wattkeeper.core.policy import BASELINE_CAP, Amount, Cap, Ceiling, Policy, Requests, Rule
from wattkeeper.core.ramp import Ramped, match_ramped, next_edge
from wattkeeper.core.request import Asked, Malformed, NoRequest, ProfileName, Request, parse_comment
from wattkeeper.core.schedule import Schedule
from wattkeeper.model import (
    CeilingHit,
    Conditions,
    Decision,
    GpuContext,
    JobFacts,
    Outcome,
    Step,
    StepKind,
    Unknown,
)
from wattkeeper.units import Milliwatts, format_power


@dataclass(frozen=True, slots=True)
class _Ruling:
    """What one rule would make of the job on this GPU."""

    rule: Rule | None
    rule_cap_mw: Milliwatts | None
    cap_mw: Milliwatts | None
    outcome: Outcome
    steps: tuple[Step, ...]
    allowed_mw: tuple[Milliwatts, Milliwatts] | None


def resolve(job: JobFacts, gpu: GpuContext, policy: Policy, conditions: Conditions) -> Decision:
    """Rule and request for one job on one GPU.

    The first rule that matches decides. Where a field is not yet known, the lowest cap among the rules that
    could still match holds meanwhile, and ``pending`` names the fields.
    """
    places, pending, rules_change = _candidates(job, gpu, policy, conditions)
    asked, request_pending = _request_of(job)
    rulings = _rulings(places, asked, gpu, policy)
    ruling = min(rulings, key=lambda r: (r.cap_mw is None, r.cap_mw or 0))
    steps = ruling.steps
    if len(places) > 1:
        waiting = (
            f"; the lowest of {len(places)} rules that could match while {', '.join(sorted(pending))} is not known"
        )
        steps = (Step(steps[0].kind, steps[0].text + waiting, steps[0].cap_mw, steps[0].source), *steps[1:])
    ceilings, ceiling_pending, ceilings_change = _ceilings(policy.ceilings, job, gpu, conditions)
    return Decision(
        gpu=gpu.info.uuid,
        job=job,
        rule=ruling.rule.name if ruling.rule else None,
        rule_cap_mw=min((r.rule_cap_mw for r in rulings if r.rule_cap_mw is not None), default=None),
        cap_mw=ruling.cap_mw,
        outcome=ruling.outcome,
        asked=None if isinstance(asked, NoRequest) else asked.text,
        steps=steps,
        allowed_mw=ruling.allowed_mw,
        ceilings=ceilings,
        observe=conditions.observe or (ruling.rule is not None and ruling.rule.observe),
        pending=pending | request_pending | ceiling_pending,
        next_change=_first(rules_change, ceilings_change),
    )


def resolve_idle(gpu: GpuContext, policy: Policy, conditions: Conditions) -> Decision:
    """What a GPU gets that no job holds: the policy's ``idle`` cap under the ceilings that select no jobs."""
    cap = cap_mw(policy.idle, gpu)
    timeless = tuple(ceiling for ceiling in policy.ceilings if not selects_jobs(ceiling.when))
    ceilings, _, change = _ceilings(timeless, None, gpu, conditions)
    step = Step(StepKind.RULE, f"no job holds this GPU: idle cap {describe_cap(policy.idle, gpu)}", cap)
    return Decision(
        gpu=gpu.info.uuid,
        job=None,
        rule=None,
        rule_cap_mw=cap,
        cap_mw=cap,
        outcome=Outcome.NONE,
        asked=None,
        steps=(step,),
        ceilings=ceilings,
        observe=conditions.observe,
        next_change=change,
    )


def _first(*changes: float | None) -> float | None:
    """The earliest of some moments, of which some may not be."""
    return min((change for change in changes if change is not None), default=None)


def _candidates(
    job: JobFacts, gpu: GpuContext, policy: Policy, conditions: Conditions
) -> tuple[list[int | None], frozenset[str], float | None]:
    """The rules that could be the first to match, by their places; None stands for the built-in last one. Then the
    fields that this hinges on, and the first moment at which a schedule that was looked at turns."""
    places: list[int | None] = []
    pending: frozenset[str] = frozenset()
    schedules: dict[int, Schedule] = {}
    matcher = Matcher(job, gpu.info, conditions)
    for at in matcher.may_fit(policy.filing):
        found = matcher.match(policy.filing.whens[at])
        for schedule in found.schedules:
            schedules[id(schedule)] = schedule
        if found.value is False:
            continue
        places.append(at)
        if found.value is True:
            return places, pending, next_edge(schedules.values(), conditions)
        if not found.pending <= pending:
            pending |= found.pending
    return [*places, None], pending, next_edge(schedules.values(), conditions)


def _rulings(places: list[int | None], asked: Request, gpu: GpuContext, policy: Policy) -> list[_Ruling]:
    """What each of the rules would make of the job; of those that come to the same caps only the first."""
    firsts: dict[int | None, Rule | None] = {}
    for at in places:
        firsts.setdefault(None if at is None else policy.terms[at], None if at is None else policy.rules[at])
    return [_rule_on(rule, asked, gpu, policy) for rule in firsts.values()]


def _request_of(job: JobFacts) -> tuple[Request, frozenset[str]]:
    if isinstance(job.comment, Unknown):
        return NoRequest(), frozenset({"comment"})
    return parse_comment(job.comment), frozenset()


def _rule_on(rule: Rule | None, request: Request, gpu: GpuContext, policy: Policy) -> _Ruling:
    """The rule's cap, and what it lets the request make of it."""
    cap = rule.cap if rule else BASELINE_CAP
    base_mw = cap_mw(cap, gpu)
    name = f"rule '{rule.name}'" if rule else "no rule matches"
    rule_step = Step(StepKind.RULE, f"{name}: cap {describe_cap(cap, gpu)}", base_mw, rule.source if rule else None)
    requests = rule.requests if rule else None
    allowed = _allowed(requests, gpu) if requests else None
    granted_mw, outcome, text = _answer(request, requests, allowed, gpu, policy, name)
    final_mw = base_mw if granted_mw is None else granted_mw
    steps = (rule_step, Step(StepKind.REQUEST, text, final_mw))
    return _Ruling(rule, base_mw, final_mw, outcome, steps, allowed)


def _allowed(requests: Requests, gpu: GpuContext) -> tuple[Milliwatts, Milliwatts]:
    """The bounds of a request on this GPU, never outside of what the device and the baseline allow."""
    top = highest_mw(gpu)
    low_mw, high_mw = cap_mw(requests.min, gpu), cap_mw(requests.max, gpu)
    high = top if high_mw is None else max(gpu.info.min_mw, min(high_mw, top))
    low = high if low_mw is None else max(gpu.info.min_mw, min(low_mw, high))
    return low, high


def _answer(
    request: Request,
    requests: Requests | None,
    allowed: tuple[Milliwatts, Milliwatts] | None,
    gpu: GpuContext,
    policy: Policy,
    name: str,
) -> tuple[Milliwatts | None, Outcome, str]:
    """The cap a request brings (None: the rule's stands), its outcome and the words for it."""
    if isinstance(request, NoRequest):
        return None, Outcome.NONE, "nothing asked"
    if isinstance(request, Malformed):
        return None, Outcome.MALFORMED, f"'{request.text}' is malformed ({request.reason}): as if nothing was asked"
    wanted = _wanted(request, gpu, policy)
    if wanted is None:
        known = ", ".join(sorted(policy.profiles)) or "none"
        text = f"'{request.text}' names no profile (profiles: {known}): as if nothing was asked"
        return None, Outcome.MALFORMED, text
    if requests is None or allowed is None:
        return None, Outcome.DENIED, f"asked {request.text}: denied, {name}{'' if requests else ' takes no requests'}"
    wanted_mw = amount_mw(wanted, gpu) if not isinstance(wanted, Cap) else cap_mw(wanted, gpu)
    if wanted_mw is None:
        return None, Outcome.NONE, f"asked {request.text}: the baseline is not known yet"
    low, high = allowed
    span = f"{format_power(low)} to {format_power(high)}"
    if low <= wanted_mw <= high:
        text = f"asked {request.text}: granted {format_power(wanted_mw)}, {name} allows {span}"
        return wanted_mw, Outcome.GRANTED, text
    if requests.outside == "deny":
        return None, Outcome.DENIED, f"asked {request.text}: denied, {name} allows only {span}"
    clamped = max(low, min(high, wanted_mw))
    text = f"asked {request.text}: clamped to {format_power(clamped)}, {name} allows {span}"
    return clamped, Outcome.CLAMPED, text


def _wanted(request: Asked, gpu: GpuContext, policy: Policy) -> Amount | Cap | None:
    if isinstance(request.value, ProfileName):
        return policy.profiles.get(request.value.name)
    return request.value


def _ceilings(
    ceilings: Iterable[Ceiling], job: JobFacts | None, gpu: GpuContext, conditions: Conditions
) -> tuple[tuple[CeilingHit, ...], frozenset[str], float | None]:
    """Every ceiling that applies, or could: while a field is unknown the cautious answer is that it does. Then the
    unknown fields, and the first moment at which one of them may come or go by time."""
    hits: list[CeilingHit] = []
    pending: frozenset[str] = frozenset()
    change: float | None = None
    for ceiling in ceilings:
        found = match_ramped(ceiling, job, gpu.info, conditions)
        change = _first(change, found.next_change)
        if found.value is False:
            continue
        pending |= found.pending
        hit = _hit(ceiling, gpu, found)
        if hit:
            hits.append(hit)
    return tuple(hits), pending, change


def _hit(ceiling: Ceiling, gpu: GpuContext, found: Ramped) -> CeilingHit | None:
    bound_mw = cap_mw(ceiling.cap, gpu)
    if bound_mw is None:
        return None
    ramping = f", {found.ramping}" if found.ramping else ""
    text = f"'{ceiling.name}': at most {describe_cap(ceiling.cap, gpu)}{ramping}"
    return CeilingHit(ceiling.name, bound_mw, text, ceiling.source)
