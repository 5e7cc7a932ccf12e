"""Jobs + idle + unattributed is what the counter gained: to the millijoule, whatever happens."""

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.attribute import attribute, supersedes
from wattkeeper.model import Charges, EnergySample, GpuUuid, JobKey, Watermark
from wattkeeper.units import Millijoules

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


@given(_steps)
def test_energy_goes_to_those_who_held_the_gpu_at_both_ends_in_equal_parts(steps: list[Step]) -> None:
    for earlier, later in pairwise(steps):
        watermark = Watermark(EnergySample(GPU, Millijoules(5), 0.0, 1.0, "b"), earlier.owners)
        sample = EnergySample(GPU, Millijoules(5 + later.gain), 0.0, 2.0, "b")
        charges = attribute(watermark, sample, later.owners)
        if set(earlier.owners) != set(later.owners):
            assert charges == Charges(GPU, unattributed_mj=Millijoules(later.gain))
        elif not later.owners:
            assert charges == Charges(GPU, idle_mj=Millijoules(later.gain))
        else:
            assert set(charges.jobs_mj) == set(later.owners)
            assert max(charges.jobs_mj.values()) - min(charges.jobs_mj.values()) <= 1


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
    assert attribute(watermark, sample, (_KEYS[0],)) == Charges(GPU, unattributed_mj=Millijoules(9))
