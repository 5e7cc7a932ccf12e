"""What a policy offers a user: which limit each profile is, and what may be asked for in which partition."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from wattkeeper.core.amounts import cap_mw, highest_mw
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.match import match
from wattkeeper.core.policy import Glob, Policy, Rule, When
from wattkeeper.core.resolve import resolve
from wattkeeper.model import Conditions, Decision, GpuContext, JobFacts, Outcome
from wattkeeper.units import Milliwatts

OTHERS = "any other"
"""A partition that the policy does not name."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one rule (None: no rule matches) makes of a user's job on one GPU.

    ``hinges_on``: fields that are not known, by which the rule may or may not be the one that decides. ``cap_mw``: the
    limit of a job that asks for nothing, ceilings that hold now included. ``allowed_mw``: the lowest and highest that
    may be asked for; None where requests are denied. ``denies``: what is outside of that is denied, not clamped.
    ``profiles``: those that are granted as they are. ``ceiling``: the one that binds now, in words.
    ``observe``: nothing of it is written.
    """

    rule: str | None
    hinges_on: frozenset[str]
    cap_mw: Milliwatts | None
    allowed_mw: tuple[Milliwatts, Milliwatts] | None
    denies: bool
    profiles: tuple[str, ...]
    ceiling: str | None
    observe: bool


def profiles_mw(policy: Policy, gpu: GpuContext) -> dict[str, Milliwatts | None]:
    """By name what each profile comes to on that GPU, within the device's range and under its baseline.

    None where it takes the baseline and that is not known.
    """
    found = {name: cap_mw(cap, gpu) for name, cap in policy.profiles.items()}
    top = highest_mw(gpu)
    return {
        name: None if value is None else max(gpu.info.min_mw, min(value, top)) for name, value in sorted(found.items())
    }


def partitions(policy: Policy) -> tuple[str, ...]:
    """The partitions that rules and ceilings name, as they are written, and ``OTHERS``."""
    whens = [rule.when for rule in policy.rules] + [ceiling.when for ceiling in policy.ceilings]
    return (*dict.fromkeys(name for when in whens for name in _named(when)), OTHERS)


def _named(when: When) -> Iterator[str]:
    for selector in when.selectors:
        if selector.field == "partition":
            yield from (pattern.pattern for pattern in selector.patterns if isinstance(pattern, Glob))
    if when.negated is not None:
        yield from _named(when.negated)


def offers(job: JobFacts, gpu: GpuContext, policy: Policy, conditions: Conditions) -> tuple[Offer, ...]:
    """The offers of every rule that may decide about such a job, in the policy's order; the last one surely matches.

    Fields of ``job`` that are UNKNOWN are those that the user may still choose, or has not told.
    """
    found: list[Offer] = []
    for rule in policy.rules:
        answer = match(rule.when, job, gpu.info, conditions)
        if answer.value is False:
            continue
        found.append(_offer(rule, answer.pending, job, gpu, policy, conditions))
        if answer.value is True:
            return tuple(found)
    return (*found, _offer(None, frozenset(), job, gpu, policy, conditions))


def _offer(
    rule: Rule | None, pending: frozenset[str], job: JobFacts, gpu: GpuContext, policy: Policy, conditions: Conditions
) -> Offer:
    """As if that rule were the only one, and matched."""
    alone = replace(policy, rules=() if rule is None else (replace(rule, when=When()),))
    target = arbitrate([resolve(replace(job, comment=None), gpu, alone, conditions)], gpu, alone)
    (decision,) = target.decisions
    asked = {name: resolve(replace(job, comment=f"power={name}"), gpu, alone, conditions) for name in policy.profiles}
    return Offer(
        rule=rule.name if rule else None,
        hinges_on=pending,
        cap_mw=target.limit_mw,
        allowed_mw=decision.allowed_mw,
        denies=bool(rule and rule.requests and rule.requests.outside == "deny"),
        profiles=tuple(sorted(name for name, answer in asked.items() if answer.outcome is Outcome.GRANTED)),
        ceiling=_ceiling(decision, gpu),
        observe=target.observe,
    )


def _ceiling(decision: Decision, gpu: GpuContext) -> str | None:
    """The lowest ceiling that holds now, where it is below what might be had without it."""
    lowest = min(decision.ceilings, key=lambda hit: hit.cap_mw, default=None)
    most = max((mw for mw in (decision.cap_mw, *(decision.allowed_mw or ())) if mw is not None), default=None)
    return lowest.text if lowest is not None and most is not None and lowest.cap_mw < most else None
