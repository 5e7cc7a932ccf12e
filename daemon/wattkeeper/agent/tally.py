"""Counting what happened, for the metrics."""

from collections import Counter
from dataclasses import dataclass, field

from wattkeeper.core.drift import Cause, Reaction
from wattkeeper.model import Gap
from wattkeeper.snapshot import APPLY_BUCKETS_S, Counters, Histogram

CAUSES = ("start", "end", "drift", "retry", "recovery", "reload", "schedule", "lookup")
"""Why a limit is written: the ``cause`` label of ``cap_writes_total``."""


@dataclass(slots=True)
class Tally:
    """Counts since the agent's start; ``view`` is the immutable copy that a snapshot carries."""

    cap_writes: Counter[str] = field(default_factory=Counter)
    cap_write_errors: Counter[tuple[int, str]] = field(default_factory=Counter)
    hook_events: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    drift: Counter[tuple[int, str, str]] = field(default_factory=Counter)
    energy_gaps: Counter[tuple[int, str]] = field(default_factory=Counter)
    slurm_lookups: Counter[tuple[str, str]] = field(default_factory=Counter)
    _applied: dict[str, Histogram] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cap_writes.update(dict.fromkeys(CAUSES, 0))

    def expect(self, minor: int) -> None:
        """Begin a GPU's counts at 0, so that Prometheus sees its first drift, or gap, as an increase."""
        for gap in Gap:
            self.energy_gaps[minor, gap] += 0
        for reaction in Reaction:
            self.drift[minor, Cause.WRITER, reaction] += 0
        self.drift[minor, Cause.RESET, Reaction.REPAIRED] += 0

    def refused(self, event: str) -> None:
        """Note a file in the spool that is no event of Slurm's."""
        self.hook_events[event, "refused"] += 1

    def applied(self, event: str, seconds: float) -> None:
        """Note how long it took from an event's receipt to the read-back of its limits."""
        old = self._applied.get(event, Histogram())
        buckets = tuple(n + (seconds <= edge) for n, edge in zip(old.buckets, APPLY_BUCKETS_S, strict=True))
        self._applied[event] = Histogram(buckets, old.count + 1, old.sum_s + seconds)

    def view(self) -> Counters:
        """The counts as they stand."""
        return Counters(
            cap_writes=dict(self.cap_writes),
            cap_write_errors=dict(self.cap_write_errors),
            hook_events=dict(self.hook_events),
            requests=dict(self.requests),
            drift=dict(self.drift),
            energy_gaps=dict(self.energy_gaps),
            slurm_lookups=dict(self.slurm_lookups),
            apply_seconds=dict(self._applied),
        )
