"""Changes that were merged leave a ledger as they would have one by one."""

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.ledger.memory import MemoryStore
from wattkeeper.ledger.merge import merged
from wattkeeper.model import (
    Basis,
    Charges,
    EnergySample,
    EnergySource,
    Gap,
    GpuUuid,
    Holding,
    JobFacts,
    JobKey,
    Sharing,
    Watermark,
)
from wattkeeper.protocols import Change, GpuNote, JobNote
from wattkeeper.snapshot import AdminHold
from wattkeeper.units import Millijoules, Milliwatts

NOW = 1_800_000_000.0
GPUS = (GpuUuid("GPU-a"), GpuUuid("GPU-b"))
RUNS = tuple(JobKey("lab", number, "r0") for number in range(1, 4))

gpus, runs = st.sampled_from(GPUS), st.sampled_from(RUNS)
mj = st.integers(0, 1_000).map(Millijoules)
mw = st.none() | st.integers(0, 700_000).map(Milliwatts)


def facts(key: JobKey) -> JobFacts:
    return JobFacts(key, 1000, "alice", f"account-{key.job_id % 2}")


holdings = st.builds(lambda key, gpu: Holding(facts(key), gpu, Sharing.SHARED, NOW, 0.0), runs, gpus)
charges = st.builds(
    Charges,
    gpus,
    st.dictionaries(runs, mj, max_size=2),
    mj,
    mj,
    st.none() | st.sampled_from(Basis),
    st.sampled_from(EnergySource),
    st.none() | st.sampled_from(Gap),
    st.integers(0, 10**9),
    st.none() | st.integers(0, 10**9),
    mw,
    st.floats(NOW, NOW + 2 * 86_400),
)
notes = st.builds(
    lambda key, asked, gpu, cap: JobNote(facts(key), NOW, None, asked, gpus={gpu: GpuNote(0, "H100", cap)}),
    runs,
    st.none() | st.just("300W"),
    gpus,
    mw,
)


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """Changes in the order in which an agent makes them: every charge comes with a newer watermark of its GPU.

    Of a GPU that was not charged the owners may have changed since its last one.
    """
    history: list[Change] = []
    last: dict[GpuUuid, Watermark] = {}
    for number in range(draw(st.integers(2, 6))):
        charged = tuple(draw(st.lists(charges, max_size=3)))
        marks = tuple(
            Watermark(EnergySample(gpu, Millijoules(number), NOW + number, float(number), "boot"), ())
            for gpu in sorted({charge.gpu for charge in charged})
        )
        changed = draw(st.sets(gpus)) & last.keys() - {mark.sample.gpu for mark in marks}
        marks += tuple(Watermark(last[gpu].sample, None) for gpu in sorted(changed))
        last.update({mark.sample.gpu: mark for mark in marks})
        history.append(
            Change(
                "boot",
                NOW + number,
                removed=tuple(draw(st.lists(holdings, max_size=2))),
                added=tuple(draw(st.lists(holdings, max_size=2, unique_by=lambda h: (h.job.key, h.gpu)))),
                over=tuple(draw(st.lists(runs, max_size=1))),
                charges=charged,
                watermarks=marks,
                holds=draw(st.dictionaries(gpus, st.none() | st.just(AdminHold("fan", NOW, None)), max_size=1)),
                notes=tuple(draw(st.lists(notes, max_size=2, unique_by=lambda note: note.facts.key))),
            )
        )
    return history


@given(histories())
def test_merged_changes_leave_what_they_would_leave_one_by_one(history: list[Change]) -> None:
    # every account is known before the first charge: merging brings notes forward
    begun = Change("boot", NOW, notes=tuple(JobNote(facts(key), NOW) for key in RUNS))
    one_by_one, at_once = MemoryStore(), MemoryStore()
    for store in (one_by_one, at_once):
        store.commit(begun)
    for change in history:
        one_by_one.commit(change)
    at_once.commit(reduce(merged, history))
    expected, found = one_by_one.load(), at_once.load()
    for kept in (expected, found):
        assert sorted(kept.holdings, key=lambda h: (h.job.key, h.gpu)) == sorted(
            expected.holdings, key=lambda h: (h.job.key, h.gpu)
        )
    assert (found.usage, found.accounts_mj) == (expected.usage, expected.accounts_mj)
    assert (found.idle_mj, found.unattributed_mj) == (expected.idle_mj, expected.unattributed_mj)
    assert (found.watermarks, found.holds, set(found.over)) == (expected.watermarks, expected.holds, set(expected.over))
    assert {record.note.facts.key for record in at_once.unrecorded()} == {
        record.note.facts.key for record in one_by_one.unrecorded()
    }
