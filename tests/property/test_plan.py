"""Plans: no prefix lets the node draw more than both its ends, and what is left of one is always the same."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.plan import TOLERANCE_MW, plan
from wattkeeper.model import Action, GpuReading, GpuUuid, Target
from wattkeeper.units import Milliwatts

Readings = dict[GpuUuid, GpuReading]

_UUIDS = [GpuUuid(f"GPU-{number}") for number in range(6)]
_limits = st.integers(100_000, 700_000).map(Milliwatts) | st.sampled_from([300_000, 300_900, 301_000, 301_001]).map(
    Milliwatts
)
_readings = st.dictionaries(
    st.sampled_from(_UUIDS), st.builds(GpuReading, st.just(0.0), st.just(0.0), st.none() | _limits)
)


@st.composite
def _targets(draw: st.DrawFn) -> list[Target]:
    uuids = draw(st.lists(st.sampled_from(_UUIDS), unique=True))
    limits = [draw(st.none() | _limits) for _ in uuids]
    return [Target(uuid, limit, (), draw(st.booleans())) for uuid, limit in zip(uuids, limits, strict=True)]


_baselines = st.frozensets(st.sampled_from(_UUIDS))


def applied(readings: Readings, actions: tuple[Action, ...]) -> Readings:
    after = dict(readings)
    for action in actions:
        after[action.gpu] = dataclasses.replace(after[action.gpu], requested_mw=action.new_mw)
    return after


def total(readings: Readings) -> int:
    return sum(reading.requested_mw or 0 for reading in readings.values())


@given(_targets(), _readings, _baselines)
def test_no_prefix_draws_more_than_both_ends(
    targets: list[Target], readings: Readings, baselines: frozenset[GpuUuid]
) -> None:
    actions = plan(targets, readings, baselines)
    sums = [total(applied(readings, actions[:length])) for length in range(len(actions) + 1)]
    assert max(sums) == max(sums[0], sums[-1])


@given(_targets(), _readings, _baselines)
def test_every_lowering_precedes_every_raise(
    targets: list[Target], readings: Readings, baselines: frozenset[GpuUuid]
) -> None:
    lowers = [action.lowers for action in plan(targets, readings, baselines)]
    assert lowers == sorted(lowers, reverse=True)


@given(_targets(), _readings, _baselines)
def test_after_any_prefix_the_plan_is_the_rest(
    targets: list[Target], readings: Readings, baselines: frozenset[GpuUuid]
) -> None:
    actions = plan(targets, readings, baselines)
    for length in range(len(actions) + 1):
        assert plan(targets, applied(readings, actions[:length]), baselines) == actions[length:]


@given(_targets(), _readings, _baselines)
def test_a_gpu_is_written_exactly_where_it_may_be_and_is_not_as_wanted(
    targets: list[Target], readings: Readings, baselines: frozenset[GpuUuid]
) -> None:
    written = {action.gpu: action for action in plan(targets, readings, baselines)}
    for target in targets:
        reading = readings.get(target.gpu)
        requested = reading.requested_mw if reading else None
        may = target.gpu in baselines and not target.observe
        if not may or target.limit_mw is None or requested is None or abs(requested - target.limit_mw) <= TOLERANCE_MW:
            assert target.gpu not in written
        else:
            assert written[target.gpu] == Action(target.gpu, requested, target.limit_mw, target.why)
    assert set(written) <= {target.gpu for target in targets}
