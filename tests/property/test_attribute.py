"""Jobs + idle + unattributed is what the counter gained: to the millijoule, whatever happens."""

from dataclasses import dataclass, replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.attribute import attribute, supersedes
from wattkeeper.model import Basis, Charges, EnergySample, EnergySource, Gap, GpuUuid, JobKey, Watermark
from wattkeeper.units import Millijoules, Milliwatts

GPU = GpuUuid("GPU-1")
_KEYS = [JobKey("c", number, "r0") for number in range(3)]


@dataclass(frozen=True)
class Step:
    """What happens, then a sample by ``owners``."""

    seconds: int
    gain: int
    event: str  # none | reset | reboot | stale
    owners: tuple[JobKey, ...]


_steps = st.lists(
    st.builds(
        Step,
        st.integers(1, 10),
        st.integers(0, 10_000) | st.integers(0, 2**52),
        st.sampled_from(["none", "none", "none", "reset", "reboot", "stale"]),
        st.lists(st.sampled_from(_KEYS), max_size=3, unique=True).map(tuple),
    ),
    max_size=30,
)


def parts(charges: Charges) -> int:
    return sum(charges.jobs_mj.values()) + charges.idle_mj + charges.unattributed_mj


@given(_steps)
def test_not_a_millijoule_is_lost_or_counted_twice(steps: list[Step]) -> None:
    """Energy that the counter showed is charged once; what it gained before a reset and never showed is not."""
    watermark: Watermark | None = None
    energy, mono, boot = 1_000, 100.0, 0
    charged = shown = 0
    for step in steps:
        owners = step.owners
        if step.event == "stale" and watermark is not None:
            old = watermark.sample
            sample = EnergySample(GPU, Millijoules(max(0, old.energy_mj - 1)), 0.0, old.at_mono, old.boot_id)
        else:
            if step.event in {"reset", "reboot"}:
                energy = 0
                boot += step.event == "reboot"
                mono = 0.0 if step.event == "reboot" else mono
            before = energy
            energy, mono = energy + step.gain, mono + step.seconds
            sample = EnergySample(GPU, Millijoules(energy), 0.0, mono, f"boot-{boot}")
            if watermark is not None:
                seen = watermark.sample
                passed_by = step.event == "reset" and energy >= seen.energy_mj  # a reset nobody can see
                shown += energy - seen.energy_mj if passed_by else energy - before
        charges = attribute(watermark, sample, owners)
        assert min((charges.idle_mj, charges.unattributed_mj, *charges.jobs_mj.values())) >= 0
        charged += parts(charges)
        assert charged == shown
        if supersedes(watermark, sample):
            watermark = Watermark(sample, owners)


@given(_steps, st.booleans())
def test_energy_goes_to_those_who_held_the_gpu_all_the_while_in_equal_parts(steps: list[Step], changed: bool) -> None:
    for earlier, later in pairwise(steps):
        watermark = Watermark(EnergySample(GPU, Millijoules(5), 0.0, 1.0, "b"), None if changed else earlier.owners)
        sample = EnergySample(GPU, Millijoules(5 + later.gain), 0.0, 2.0, "b")
        charges = attribute(watermark, sample, later.owners)
        if changed or set(earlier.owners) != set(later.owners):
            assert (charges.unattributed_mj, charges.gap, charges.basis) == (later.gain, Gap.OUTAGE, None)
        elif not later.owners:
            assert (charges.idle_mj, charges.gap, charges.basis) == (later.gain, None, None)
        else:
            assert set(charges.jobs_mj) == set(later.owners)
            assert max(charges.jobs_mj.values()) - min(charges.jobs_mj.values()) <= 1
            assert charges.basis is (Basis.SOLE if len(later.owners) == 1 else Basis.EVEN)


@given(st.lists(st.sampled_from(_KEYS), min_size=1, max_size=5), st.integers(0, 1000))
def test_an_owner_named_twice_loses_nothing(owners: list[JobKey], gain: int) -> None:
    watermark = Watermark(EnergySample(GPU, Millijoules(5), 0.0, 1.0, "b"), tuple(owners))
    charges = attribute(watermark, EnergySample(GPU, Millijoules(5 + gain), 0.0, 2.0, "b"), owners)
    assert parts(charges) == gain


def test_the_first_sample_charges_nobody() -> None:
    sample = EnergySample(GPU, Millijoules(7), 0.0, 1.0, "b")
    assert attribute(None, sample, _KEYS) == Charges(GPU)


def test_a_sample_overtaken_on_its_way_charges_nobody() -> None:
    watermark = Watermark(EnergySample(GPU, Millijoules(7), 0.0, 2.0, "b"), ())
    late = EnergySample(GPU, Millijoules(6), 0.0, 1.0, "b")
    assert not supersedes(watermark, late)
    assert attribute(watermark, late, ()) == Charges(GPU)


def test_after_a_reboot_the_counter_is_nobodys_even_where_it_is_higher_and_the_clock_lower() -> None:
    watermark = Watermark(EnergySample(GPU, Millijoules(7), 0.0, 500.0, "b"), (_KEYS[0],))
    sample = EnergySample(GPU, Millijoules(9), 0.0, 3.0, "another")
    assert attribute(watermark, sample, (_KEYS[0],)) == Charges(GPU, unattributed_mj=Millijoules(9), gap=Gap.RESTART)


_weights = st.dictionaries(st.sampled_from(_KEYS), st.integers(0, 10_000))


@given(_weights, st.integers(0, 2**52))
def test_holders_get_their_share_of_the_use_to_the_millijoule(weights: dict[JobKey, int], gain: int) -> None:
    charges = interval(gain, _KEYS, weights)
    total = sum(weights.values())
    assert parts(charges) == gain
    if total == 0:
        assert charges.basis is Basis.EVEN
        return
    assert charges.basis is Basis.USE
    for key, energy in charges.jobs_mj.items():
        assert abs(energy - gain * weights.get(key, 0) / total) <= 1 + gain * 1e-15


@given(_weights, st.integers(0, 10_000))
def test_what_others_weigh_makes_no_difference(weights: dict[JobKey, int], gain: int) -> None:
    """A process of a job that does not hold the GPU is no owner of its energy."""
    strangers = {JobKey("c", 99, "r0"): 5}
    assert interval(gain, _KEYS[:2], {**weights, **strangers}) == interval(gain, _KEYS[:2], weights)


def test_ninety_to_ten_is_not_divided_evenly() -> None:
    charges = interval(1_000, _KEYS[:2], {_KEYS[0]: 90, _KEYS[1]: 10})
    assert charges.jobs_mj == {_KEYS[0]: 900, _KEYS[1]: 100}


def test_seven_slices() -> None:
    charges = interval(700, _KEYS[:2], {_KEYS[0]: 3, _KEYS[1]: 4}, Basis.SLICES)
    assert (charges.jobs_mj, charges.basis) == ({_KEYS[0]: 300, _KEYS[1]: 400}, Basis.SLICES)


def interval(gain: int, owners: list[JobKey], weights: dict[JobKey, int], by: Basis = Basis.USE) -> Charges:
    watermark = Watermark(EnergySample(GPU, Millijoules(5), 0.0, 1.0, "b"), tuple(owners))
    sample = EnergySample(GPU, Millijoules(5 + gain), 0.0, 2.0, "b")
    return attribute(watermark, sample, owners, weights=weights, weighed_by=by)


WATTS_700 = Milliwatts(700_000)


def after(before_mj: int, now_mj: int, seconds: float = 10.0) -> Charges:
    """An interval of one job on a GPU of 700 W."""
    watermark = Watermark(EnergySample(GPU, Millijoules(before_mj), 0.0, 100.0, "b"), (_KEYS[0],))
    sample = EnergySample(GPU, Millijoules(now_mj), 0.0, 100.0 + seconds, "b")
    return attribute(watermark, sample, (_KEYS[0],), most_mw=WATTS_700)


def test_a_counter_that_restarted_shows_what_came_since() -> None:
    charges = after(5_000_000, 3_000_000)
    assert (charges.unattributed_mj, charges.gap, charges.jobs_mj) == (3_000_000, Gap.RESTART, {})


def test_a_counter_that_falls_by_a_little_bills_nobody_for_its_whole_life() -> None:
    charges = after(5_000_000_000, 4_999_500_000)
    assert (parts(charges), charges.gap) == (0, Gap.JUMP)


def test_of_a_counter_that_leaps_ahead_no_more_counts_than_a_gpu_can_draw() -> None:
    charges = after(5_000_000, 505_000_000)
    assert (charges.unattributed_mj, charges.gap, charges.jobs_mj) == (3 * 700_000 * 11, Gap.JUMP, {})


def test_a_superchip_that_draws_more_than_its_gpu_alone_may_is_no_leap() -> None:
    """A GPU of 1,400 W in a module of 2,900 W, over a minute."""
    watermark = Watermark(EnergySample(GPU, Millijoules(5), 0.0, 100.0, "b"), (_KEYS[0],))
    sample = EnergySample(GPU, Millijoules(5 + 2_900_000 * 60), 0.0, 160.0, "b")
    charges = attribute(watermark, sample, (_KEYS[0],), most_mw=Milliwatts(1_400_000))
    assert charges.jobs_mj == {_KEYS[0]: 2_900_000 * 60}


@given(st.lists(st.tuples(st.floats(0.1, 100.0), st.integers(0, 2**60)), max_size=30))
def test_whatever_a_counter_shows_no_more_counts_than_a_gpu_can_draw(readings: list[tuple[float, int]]) -> None:
    watermark = Watermark(EnergySample(GPU, Millijoules(2**40), 0.0, 100.0, "b"), (_KEYS[0],))
    counted, most_mj = 0, 0.0
    for seconds, energy in readings:
        mono = watermark.sample.at_mono + seconds
        sample = EnergySample(GPU, Millijoules(energy), 0.0, mono, "b")
        counted += parts(attribute(watermark, sample, (_KEYS[0],), most_mw=WATTS_700))
        most_mj += 3 * 700_000 * (seconds + 1)
        watermark = Watermark(sample, (_KEYS[0],))
    assert counted <= most_mj


def test_a_spike_and_a_step_of_the_counter_are_no_leap() -> None:
    charges = after(5_000_000, 5_000_000 + int(700_000 * 1.6 * 0.05 + 700_000 * 0.1), seconds=0.05)
    assert charges.gap is None
    assert charges.jobs_mj.keys() == {_KEYS[0]}


def test_an_interval_knows_how_long_it_was_and_how_long_the_cap_held() -> None:
    before = EnergySample(GPU, Millijoules(5), 0.0, 1.0, "b", capped_ns=10)
    sample = replace(before, energy_mj=Millijoules(9), at=50.0, at_mono=3.5, capped_ns=1_000_000_010)
    charges = attribute(Watermark(before, (_KEYS[0],)), replace(sample, power_mw=Milliwatts(400_000)), (_KEYS[0],))
    assert (charges.held_ns, charges.capped_ns, charges.power_mw) == (2_500_000_000, 1_000_000_000, 400_000)
    restarted = attribute(Watermark(sample, (_KEYS[0],)), replace(before, at_mono=4.0), (_KEYS[0],))
    assert restarted.capped_ns is None


def test_integrated_power_that_begins_anew_is_no_leap_back_of_a_counter() -> None:
    before = EnergySample(GPU, Millijoules(5_000), 0.0, 1.0, "b")
    sample = EnergySample(GPU, Millijoules(6_000), 0.0, 2.0, "b", EnergySource.POWER)
    charges = attribute(Watermark(before, (_KEYS[0],)), sample, (_KEYS[0],), most_mw=WATTS_700)
    assert (charges.unattributed_mj, charges.gap, charges.source) == (6_000, Gap.RESTART, EnergySource.POWER)
