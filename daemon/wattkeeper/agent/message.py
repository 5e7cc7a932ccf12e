"""The one line that a job's owner gets."""

from collections.abc import Mapping
from datetime import UTC, tzinfo

from wattkeeper.model import Decision, GpuUuid, Outcome, StepKind
from wattkeeper.moments import shown_at
from wattkeeper.snapshot import CapView
from wattkeeper.units import format_power


def message(
    minors: Mapping[GpuUuid, int],
    decisions: Mapping[GpuUuid, Decision],
    caps: Mapping[GpuUuid, CapView],
    now_at: float = 0.0,
    zone: tzinfo = UTC,
) -> str:
    """``wattkeeper: GPUs 0,1 capped at 250 W each (you asked 300 W; rule 'everyone' allows up to 250 W)``.

    Where the cap is only observed, or could not be set, it says so. Empty where the job has no GPU that is decided on.
    Times are written as they read at ``now_at`` in that zone.
    """
    groups: dict[tuple[CapView, str], list[int]] = {}
    for uuid, cap in caps.items():
        groups.setdefault((cap, _because(decisions[uuid], cap, now_at, zone)), []).append(minors.get(uuid, -1))
    parts = [_part(cap, because, sorted(gpus)) for (cap, because), gpus in groups.items()]
    return "wattkeeper: " + "; ".join(parts) if parts else ""


def _part(cap: CapView, because: str, gpus: list[int]) -> str:
    which = f"GPU{'s' if len(gpus) > 1 else ''} {','.join(map(str, gpus))}"
    if cap.decided_mw is None:
        return f"{which} left as found ({because})"
    limit = f"{format_power(cap.decided_mw)}{' each' if len(gpus) > 1 else ''}"
    if cap.observed:
        return f"{which} would be capped at {limit} ({because})"
    if cap.trouble is None:
        return f"{which} capped at {limit} ({because})"
    still = "" if cap.set_mw is None else f", last set to {format_power(cap.set_mw)}"
    return f"{which} not capped at {limit}: {cap.trouble}{still} ({because})"


def _because(decision: Decision, got: CapView, now_at: float, zone: tzinfo) -> str:
    cap = got.decided_mw
    rule = f"rule '{decision.rule}'" if decision.rule else "no rule matches"
    asked = f"you asked {decision.asked or 'power='}"
    allowed = f"{rule} allows up to {format_power(decision.allowed_mw[1])}" if decision.allowed_mw else rule
    match decision.outcome:
        case Outcome.NONE:
            text = rule
        case Outcome.GRANTED:
            text = f"{asked}; {rule} grants it"
        case Outcome.CLAMPED:
            low = decision.allowed_mw and decision.cap_mw == decision.allowed_mw[0] != decision.allowed_mw[1]
            text = f"{asked}; {rule} allows no less" if low else f"{asked}; {allowed}"
        case Outcome.DENIED if decision.void:
            text = f"{asked}, which does not count because other users' jobs hold this GPU too; {rule}"
        case Outcome.DENIED:
            text = f"{asked}; {rule} does not allow that"
        case Outcome.MALFORMED:
            text = f"{asked}, which is malformed, as if nothing was asked; {rule}"
    steps = {step.kind: step for step in decision.steps}
    device, before = steps.get(StepKind.DEVICE), steps.get(StepKind.SHARING)
    if device and before and cap is not None and before.cap_mw is not None and cap < before.cap_mw:
        binding = steps[StepKind.CEILING] if steps[StepKind.CEILING].cap_mw != before.cap_mw else device
        text += f"; {binding.kind} {binding.text}"
        if binding is not device and decision.next_change is not None:
            text += f", until {shown_at(decision.next_change, now_at, zone)} at least"
    if decision.alone_mw is not None:
        shared = f"; {before.kind} {before.text}" if before and not decision.void else ""
        text += f"{shared}; alone you would have {format_power(decision.alone_mw)}"
    return text + ("; only observed, not written" if got.observed else "")
