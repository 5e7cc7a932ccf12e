"""From the decisions of a GPU's holders to the one limit it gets: sharing, ceilings, the device's range."""

from collections.abc import Sequence
from dataclasses import replace

from wattkeeper.core.amounts import highest_mw
from wattkeeper.core.policy import Policy
from wattkeeper.model import CeilingHit, Decision, GpuContext, Outcome, Step, StepKind, Target
from wattkeeper.units import Milliwatts, format_power


def arbitrate(decisions: Sequence[Decision], gpu: GpuContext, policy: Policy) -> Target:
    """The limit of a GPU held by the jobs of ``decisions`` (one with ``job`` None where it is idle).

    Each decision comes back in the target with the steps of sharing, ceilings and device added, so that its last
    step says what the GPU gets. Raises ValueError without a decision.
    """
    if not decisions:
        raise ValueError("a GPU has at least its idle decision")
    shared, sharing = _share(decisions, policy)
    hits = [hit for decision in decisions for hit in decision.ceilings]
    ceiling = _under(sharing.cap_mw, hits)
    device = _fit(ceiling.cap_mw, gpu)
    tail = (sharing, ceiling, device)
    return Target(
        gpu=gpu.info.uuid,
        limit_mw=device.cap_mw,
        decisions=tuple(replace(decision, steps=(*decision.steps, *tail)) for decision in shared),
        observe=any(decision.observe for decision in decisions),
    )


def _share(decisions: Sequence[Decision], policy: Policy) -> tuple[Sequence[Decision], Step]:
    """One cap from several holders'. Holders of different users do not get to ask: one would decide for the other."""
    if len(decisions) == 1:
        text = "the only holder" if decisions[0].job else "no holder"
        return decisions, Step(StepKind.SHARING, text, decisions[0].cap_mw)
    strangers = len({d.job.uid for d in decisions if d.job}) > 1
    caps = [d.rule_cap_mw if strangers else d.cap_mw for d in decisions]
    if any(cap is None for cap in caps):
        return decisions, Step(StepKind.SHARING, f"{len(decisions)} jobs, not all caps known yet", None)
    known = [cap for cap in caps if cap is not None]
    cap = max(known) if policy.shared_gpus == "highest" else min(known)
    parts = ", ".join(f"job {d.job.key} {format_power(c)}" for d, c in zip(decisions, known, strict=True) if d.job)
    void = " of different users, so requests do not count" if strangers else ""
    text = f"{len(decisions)} jobs{void}: the {policy.shared_gpus} of {parts}"
    if strangers:
        void_outcomes = {Outcome.GRANTED, Outcome.CLAMPED}
        decisions = [replace(d, outcome=Outcome.DENIED) if d.outcome in void_outcomes else d for d in decisions]
    return decisions, Step(StepKind.SHARING, text, cap)


def _under(cap_mw: Milliwatts | None, hits: Sequence[CeilingHit]) -> Step:
    """The lowest ceiling over the cap, named whether it binds or not."""
    if not hits:
        return Step(StepKind.CEILING, "none applies", cap_mw)
    lowest = min(hits, key=lambda hit: hit.cap_mw)
    if cap_mw is not None and lowest.cap_mw >= cap_mw:
        return Step(StepKind.CEILING, f"{lowest.text}: does not bind", cap_mw, lowest.source)
    return Step(StepKind.CEILING, f"{lowest.text}: binds", lowest.cap_mw, lowest.source)


def _fit(cap_mw: Milliwatts | None, gpu: GpuContext) -> Step:
    """What the device takes: its range, and the baseline above which nothing goes unless the settings say so."""
    low, high = gpu.info.min_mw, gpu.info.max_mw
    span = f"the device's {format_power(low)} to {format_power(high)}"
    if gpu.baseline_mw is None or cap_mw is None:
        text = "the baseline is not known, because a job was on the GPU before we first read it: limit left alone"
        return Step(StepKind.DEVICE, text, None)
    top = highest_mw(gpu)
    if cap_mw < low:
        return Step(StepKind.DEVICE, f"{format_power(cap_mw)} is below {span}: {format_power(low)}", low)
    if cap_mw > top:
        bound = "the baseline" if top < high else span
        return Step(StepKind.DEVICE, f"{format_power(cap_mw)} is above {bound}: {format_power(top)}", top)
    return Step(StepKind.DEVICE, f"{format_power(cap_mw)}, within {span}", cap_mw)
