"""A decision stands until its ``next_change``, whatever the clock does; ramps spread nodes and never come too late."""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property import policies, schedules, whens

from wattkeeper.core.edges import is_stale, wait_s
from wattkeeper.core.match import match
from wattkeeper.core.policy import Cap, Ceiling, Percent, Policy, Selector, When
from wattkeeper.core.ramp import lead_and_lag, match_ramped, slot
from wattkeeper.core.resolve import resolve, resolve_idle
from wattkeeper.core.schedule import Schedule
from wattkeeper.model import Conditions, Decision, GpuContext, GpuInfo, GpuUuid, JobFacts, Source
from wattkeeper.units import BasisPoints, Milliwatts

SEVENTY = Cap("70%", (("*", Percent(BasisPoints(7_000))),))
GPU = GpuContext(
    GpuInfo(GpuUuid("GPU-1"), 0, 0, "H100", Milliwatts(700_000), Milliwatts(200_000), Milliwatts(700_000)),
    Milliwatts(700_000),
)
NODES = tuple(f"gpu{number:04}" for number in range(2_000))
OFF_STRAIGHT = 0.05
"""By how much of the whole ramp 2,000 nodes may be off a straight one: 1 in 10,000 sets of names is further off."""


def over(*schedules: Schedule, negated: When | None = None) -> When:
    return When((Selector("schedule", schedules),) if schedules else (), negated)


_ramps = st.sampled_from([0, 60, 600, 3600])
_times = st.lists(schedules.schedules, min_size=1, max_size=2).map(lambda found: over(*found))
_jobs_too = st.tuples(_times, whens.whens).map(lambda both: When((*both[0].selectors, *both[1].selectors)))
timed: st.SearchStrategy[When] = (
    _times
    | _jobs_too
    | st.tuples(_times | st.just(When()), _times | _jobs_too).map(
        lambda both: dataclasses.replace(both[0], negated=both[1])
    )
)
ceilings = st.builds(Ceiling, st.just("c"), timed, policies.caps, st.just(Source("p.yaml", 1)), _ramps)


@st.composite
def timed_policies(draw: st.DrawFn) -> Policy:
    plain = draw(policies.policies(timed | whens.whens))
    return dataclasses.replace(plain, ceilings=tuple(draw(st.lists(ceilings, max_size=2))))


@given(
    policies.jobs(unknown=True), policies.contexts, timed_policies(), schedules.moments, schedules.zones, st.booleans()
)
def test_a_decision_stands_until_its_next_change(
    job: JobFacts, gpu: GpuContext, policy: Policy, at: int, zone: tzinfo, idle: bool
) -> None:
    def decide(moment: float) -> Decision:
        conditions = Conditions(moment, "n1", zone=zone)
        return resolve_idle(gpu, policy, conditions) if idle else resolve(job, gpu, policy, conditions)

    first = decide(at)
    whens = [rule.when for rule in policy.rules] + [found.when for found in policy.ceilings]
    timeless = not any(when.schedules() for when in whens)
    until = first.next_change
    assert until is None or (until > at and not timeless)
    end = at + 90 * 86_400 if until is None else until
    for moment in (at + (end - at) * n / 7 for n in range(7)):
        assert dataclasses.replace(decide(moment), next_change=until) == first


@given(ceilings, whens.jobs(unknown=True), whens.gpus, schedules.moments, schedules.zones)
def test_a_ramped_ceiling_holds_where_it_would_within_lead_and_lag(
    ceiling: Ceiling, job: JobFacts, gpu: GpuInfo, at: int, zone: tzinfo
) -> None:
    ceiling = dataclasses.replace(ceiling, ramp_s=min(ceiling.ramp_s, 600))
    conditions = Conditions(at, zone=zone)
    lead, lag = lead_and_lag(ceiling.ramp_s, job.node)
    around = [
        match(ceiling.when, job, gpu, dataclasses.replace(conditions, now_at=float(moment))).value
        for moment in range(at - lag, at + lead + 1, 7 if lead + lag else 1)
    ]
    found = match_ramped(ceiling, job, gpu, conditions).value
    assert found in (set(around) | {True, None} if lead + lag else set(around))
    assert found is True if True in around else found is not False if None in around else found in {False, True}


@given(st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=9), st.integers(0, 5))
def test_slots_are_spread_evenly(prefix: str, width: int) -> None:
    """0.07 and not 0.05, because each run tries new names: only 1 in 100 million sets is further off than that."""
    places = sorted(slot(f"{prefix}{number:0{width}}") for number in range(2_000))
    assert places[0] >= 0
    assert places[-1] < 1
    assert all(abs(place - (at + 0.5) / 2_000) <= 0.07 for at, place in enumerate(places))


def test_slots_are_those_of_every_release() -> None:
    assert [round(slot(name), 6) for name in ("gpu0001", "gpu0002", "")] == [0.50883, 0.690824, 0.889416]


def test_two_thousand_nodes_go_down_a_straight_ramp_and_come_up_one() -> None:
    opens = int(datetime(2027, 7, 1, 10, tzinfo=UTC).timestamp())  # 12:00 in Zurich
    closes, ramp = opens + 6 * 3600, 600
    summer = Schedule(frozenset({6, 7, 8, 9}), frozenset(range(5)), ((720, 1080),), zone=ZoneInfo("Europe/Zurich"))
    ceiling = Ceiling("summer-peak", over(summer), SEVENTY, Source("p.yaml", 1), ramp)
    policy = Policy(ceilings=(ceiling,))
    full, low = 2_000 * 700_000, 2_000 * 490_000

    def summed(moment: int) -> int:
        found = [resolve_idle(GPU, policy, Conditions(moment, node)).ceilings for node in NODES]
        return sum(min([700_000, *(hit.cap_mw for hit in hits)]) for hits in found)

    assert summed(opens - ramp - 1) == full
    for seconds in range(0, ramp, 60):
        straight = (full - low) * seconds / ramp
        assert summed(opens - ramp + seconds) == pytest.approx(full - straight, abs=(full - low) * OFF_STRAIGHT)
        assert summed(closes + seconds) == pytest.approx(low + straight, abs=(full - low) * OFF_STRAIGHT)
    assert summed(opens) == summed(closes - 1) == low
    assert summed(closes + ramp) == full


@dataclass
class Clock:
    """A wall clock. Somebody may set it; while the node sleeps it goes on, and nobody looks at it."""

    wall: float


@dataclass
class Keeper:
    """Decides anew only where the decision at hand says nothing about the present, as the agent does each tick."""

    policy: Policy
    clock: Clock
    zone: tzinfo
    decided_at: float = 0.0
    decision: Decision | None = None
    turns: int = 0

    def fresh(self) -> Decision:
        return resolve_idle(GPU, self.policy, Conditions(self.clock.wall, "gpu0001", zone=self.zone))

    def tick(self) -> bool:
        """Whether the ceiling holds."""
        if self.decision is None or is_stale(self.decided_at, self.decision.next_change, self.clock.wall):
            before, self.decision, self.decided_at = self.decision, self.fresh(), self.clock.wall
            self.turns += before is not None and bool(before.ceilings) is not bool(self.decision.ceilings)
        return bool(self.decision.ceilings)


def ceiling(schedule: Schedule, ramp_s: int = 0) -> Policy:
    return Policy(ceilings=(Ceiling("c", over(schedule), SEVENTY, Source("p.yaml", 1), ramp_s),))


# zone, hours, how often the window opens in 2027, for how many hours in all
YEARS = (
    ("UTC", (1320, 1800), 365, 365 * 8),
    ("Europe/Zurich", (1320, 1800), 365, 365 * 8),  # 22:00 to 6:00: an hour less in spring, one more in autumn
    ("Europe/Zurich", (120, 180), 364, 365),  # 2:00 to 3:00: not there in spring, two hours long in autumn
    (
        "Europe/Zurich",
        (150, 240),
        365,
        365 * 1.5 + 0.5,
    ),  # 2:30 to 4:00: from 3:00 in spring, the first 2:30 in autumn
    ("America/New_York", (60, 120), 365, 366),  # 1:00 to 2:00, twice in autumn
    ("Australia/Lord_Howe", (120, 150), 364, 364 / 2),  # 2:00 to 2:30 is left out in October; 1:30 to 2:00 repeats
    ("Africa/Cairo", (0, 60), 364, 364),  # clocks go forward at midnight
)


@pytest.mark.parametrize(("name", "hours", "opens", "open_hours"), YEARS)
def test_no_edge_of_a_year_is_lost_or_doubled(name: str, hours: tuple[int, int], opens: int, open_hours: float) -> None:
    zone = ZoneInfo(name)
    clock = Clock(datetime(2027, 1, 1, 12, tzinfo=zone).timestamp())
    end = datetime(2028, 1, 1, 12, tzinfo=zone).timestamp()
    keeper, held, opened, held_before = Keeper(ceiling(Schedule(hours=(hours,))), clock, zone), 0.0, 0, False
    while clock.wall < end:
        holds = keeper.tick()
        opened += holds and not held_before
        held_before = holds
        decision = keeper.decision
        wait = wait_s([decision.next_change if decision else None], clock.wall, 3_600)
        held += wait if holds else 0
        clock.wall += wait
    assert opened == opens
    assert held / 3600 == pytest.approx(open_hours)
    assert keeper.turns in {2 * opened, 2 * opened - 1}


_moves = st.lists(
    st.tuples(st.sampled_from(["tick", "tick", "step", "sleep"]), st.integers(-90_000, 90_000)), min_size=1, max_size=40
)


@given(schedules.schedules, st.sampled_from([0, 600]), schedules.moments, schedules.zones, _moves)
def test_a_clock_that_is_set_and_a_node_that_sleeps_end_in_what_holds_now(
    schedule: Schedule, ramp_s: int, at: int, zone: tzinfo, moves: list[tuple[str, int]]
) -> None:
    clock = Clock(float(at))
    keeper, seen = Keeper(ceiling(schedule, ramp_s), clock, zone), []
    for kind, seconds in [("tick", 0), *moves]:
        clock.wall += {"step": seconds, "sleep": abs(seconds), "tick": 5 + abs(seconds) % 600}[kind]
        seen.append(keeper.tick())
        assert seen[-1] is bool(keeper.fresh().ceilings)
    assert keeper.turns == sum(a is not b for a, b in pairwise(seen))
