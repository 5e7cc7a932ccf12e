"""From the decisions of a GPU's holders to the one limit it gets: sharing, ceilings, the device's range."""

from collections.abc import Sequence
from dataclasses import replace

from wattkeeper.core.amounts import highest_mw
from wattkeeper.core.policy import Policy
from wattkeeper.model import CeilingHit, Decision, GpuContext, Outcome, Step, StepKind, Target
from wattkeeper.units import Milliwatts, format_power

_MIG = "the limit is the whole GPU's, a MIG instance has none"


def arbitrate(decisions: Sequence[Decision], gpu: GpuContext, policy: Policy) -> Target:
    """The limit of a GPU held by the jobs of ``decisions`` (one with ``job`` None where it is idle).

    Each decision comes back in the target with the steps of sharing, ceilings and device added, so that its last
    step says what the GPU gets, and with what it would get alone. Raises ValueError without a decision.
    """
    if not decisions:
        raise ValueError("a GPU has at least its idle decision")
    shared, sharing = _share(decisions, gpu, policy)
    hits = [hit for decision in decisions for hit in decision.ceilings]
    ceiling = _under(sharing.cap_mw, hits)
    device = _fit(ceiling.cap_mw, gpu)
    tail = (sharing, ceiling, device)
    return Target(
        gpu=gpu.info.uuid,
        limit_mw=device.cap_mw,
        decisions=tuple(
            replace(d, steps=(*d.steps, *tail), alone_mw=_alone(d, len(shared), gpu, device.cap_mw)) for d in shared
        ),
        observe=any(decision.observe for decision in decisions),
    )


def _alone(decision: Decision, holders: int, gpu: GpuContext, limit_mw: Milliwatts | None) -> Milliwatts | None:
    """What the GPU would have with this holder only, where there are more and that is not what it has."""
    if holders == 1:
        return None
    alone_mw = _fit(_under(decision.cap_mw, decision.ceilings).cap_mw, gpu).cap_mw
    return None if alone_mw == limit_mw else alone_mw


def _share(decisions: Sequence[Decision], gpu: GpuContext, policy: Policy) -> tuple[Sequence[Decision], Step]:
    """One cap from several holders'. Holders of different users do not get to ask: one would decide for the other.

    Nor are they told each other's jobs: each of them reads this step.
    """
    if len(decisions) == 1:
        text = "no holder" if decisions[0].job is None else "the only holder" + ("; " + _MIG if _in_parts(gpu) else "")
        return decisions, Step(StepKind.SHARING, text, decisions[0].cap_mw)
    strangers = len({d.job.uid for d in decisions if d.job}) > 1
    caps = [d.rule_cap_mw if strangers else d.cap_mw for d in decisions]
    if any(cap is None for cap in caps):
        return decisions, Step(StepKind.SHARING, f"{len(decisions)} jobs, not all caps known yet", None)
    known = [cap for cap in caps if cap is not None]
    cap = max(known) if policy.shared_gpus == "highest" else min(known)
    names = ["" if strangers or d.job is None else f"job {d.job.key} " for d in decisions]
    parts = ", ".join(f"{name}{format_power(c)}" for name, c in zip(names, known, strict=True))
    void = " of different users, so requests do not count" if strangers else ""
    text = f"{len(decisions)} jobs{void}: the {policy.shared_gpus} of {parts}" + ("; " + _MIG if _in_parts(gpu) else "")
    return [_voided(d) for d in decisions] if strangers else decisions, Step(StepKind.SHARING, text, cap)


def _voided(decision: Decision) -> Decision:
    """A decision whose request does not count."""
    if decision.outcome not in {Outcome.GRANTED, Outcome.CLAMPED}:
        return decision
    return replace(decision, outcome=Outcome.DENIED, void=True)


def _in_parts(gpu: GpuContext) -> bool:
    return bool(gpu.info.instances)


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
