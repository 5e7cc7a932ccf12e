"""What every ledger does, on disk and in memory."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.changes import DAY, NOW, A, B, change, charges, facts, holding, key, mark, note, used

from wattkeeper.errors import StoreError
from wattkeeper.ledger import schema
from wattkeeper.ledger.memory import MemoryStore
from wattkeeper.ledger.merge import merged
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import (
    UNKNOWN,
    Basis,
    Charges,
    EnergySample,
    EnergySource,
    GpuUuid,
    Outcome,
    Sharing,
    Usage,
    Watermark,
)
from wattkeeper.protocols import GpuNote, Kept, Store
from wattkeeper.snapshot import AdminHold
from wattkeeper.units import Millijoules, Milliwatts


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = SqliteStore(tmp_path / "state.db") if request.param == "sqlite" else MemoryStore()
    with closing(made):
        yield made


def test_a_fresh_ledger_knows_nothing(store: Store) -> None:
    assert store.load() == Kept()


def test_everything_comes_back_as_it_was_written(store: Store) -> None:
    first = holding(1, A, account=None, qos=UNKNOWN, comment="power=1\n\"'\\ \udcff é", num_nodes=3, gpus=2, node="n1")
    second = replace(holding(2, B, Sharing.SHARED, qos=None, num_nodes=UNKNOWN, het_job_id=9), slices=3)
    admin = AdminHold("fan test", 1.5, None)
    sample = EnergySample(B, Millijoules(0), 5.5, 6.25, "boot-1", EnergySource.POWER, Milliwatts(70_000), 12)
    powered = Watermark(sample, ())
    store.commit(
        change(
            added=(first, second),
            over=(key(3), key(3, "r1")),
            charges=(charges(A, idle=7, nobodys=11, j1=13), charges(B, j2=2**50)),
            watermarks=(mark(A, 2**51, key(1), key(2)), powered),
            holds={A: admin, B: AdminHold("x", 1.0, 2.0)},
        )
    )
    assert store.load() == Kept(
        boot_id="boot-1",
        holdings=(first, second),
        over={key(3): NOW, key(3, "r1"): NOW},
        watermarks={A: mark(A, 2**51, key(1), key(2)), B: powered},
        usage={(key(1), A): used(13), (key(2), B): used(2**50)},
        accounts_mj={("", ""): Millijoules(13 + 2**50)},
        accounts_at={("", ""): NOW},
        idle_mj={A: Millijoules(7)},
        unattributed_mj={A: Millijoules(11)},
        holds={A: admin, B: AdminHold("x", 1.0, 2.0)},
    )


def test_absent_and_not_yet_known_stay_apart(store: Store) -> None:
    store.commit(change(added=(holding(1, qos=UNKNOWN, account=None, num_nodes=UNKNOWN),)))
    job = store.load().holdings[0].job
    assert job.qos is UNKNOWN
    assert job.num_nodes is UNKNOWN
    assert job.account is None


def test_the_same_holding_or_end_again_changes_nothing(store: Store) -> None:
    store.commit(change(added=(holding(1),), over=(key(2),)))
    once = store.load()
    store.commit(change(added=(holding(1),), over=(key(2),)))
    store.commit(change(removed=(holding(1),), added=(holding(1),)))
    store.commit(change(removed=(holding(5),)))  # never held
    assert store.load() == once


def test_a_holding_replaces_that_of_the_same_run_on_the_same_gpu(store: Store) -> None:
    store.commit(change(added=(holding(1, A), holding(1, B))))
    store.commit(change(added=(holding(1, A, qos="high"),)))
    assert store.load().holdings == (holding(1, B), holding(1, A, qos="high"))


def test_removing_takes_only_that_run_on_that_gpu(store: Store) -> None:
    store.commit(change(added=(holding(1, A), holding(1, B), holding(2, A))))
    store.commit(change(removed=(holding(1, A),)))
    assert store.load().holdings == (holding(1, B), holding(2, A))


def test_charges_add_up(store: Store) -> None:
    store.commit(change(added=(holding(1),), charges=(charges(A, j1=5, idle=1), charges(A, j1=6, nobodys=2))))
    store.commit(change(charges=(charges(A, j1=7, idle=3),)))
    kept = store.load()
    assert kept.usage == {(key(1), A): used(18)}
    assert (kept.idle_mj[A], kept.unattributed_mj[A]) == (4, 2)


def test_a_watermark_replaces_the_one_before(store: Store) -> None:
    store.commit(change(watermarks=(mark(A, 1, key(1)), mark(B, 5))))
    store.commit(change(watermarks=(mark(A, 2, mono=7.0),)))
    assert store.load().watermarks == {A: mark(A, 2, mono=7.0), B: mark(B, 5)}


def test_a_hold_is_replaced_and_taken_away(store: Store) -> None:
    store.commit(change(holds={A: AdminHold("one", 1.0, 2.0), B: AdminHold("two", 1.0, None)}))
    store.commit(change(holds={A: AdminHold("three", 3.0, None), B: None}))
    store.commit(change(holds={B: None}))
    assert store.load().holds == {A: AdminHold("three", 3.0, None)}


def test_the_boot_is_that_of_the_last_commit_and_holdings_of_another_boot_stay(store: Store) -> None:
    store.commit(change(added=(holding(1),), boot="boot-1"))
    store.commit(change(boot="boot-2"))
    assert (store.load().boot_id, store.load().holdings) == ("boot-2", (holding(1),))


def test_energy_of_holders_and_of_the_last_hour_is_loaded(store: Store) -> None:
    store.commit(change(NOW, added=(holding(1),), charges=(charges(A, j1=1, j2=2),)))
    store.commit(change(NOW + 1800, charges=(charges(A, j3=3),)))
    store.commit(change(NOW + 3601))
    assert {job.job_id: usage.energy_mj for (job, _), usage in store.load().usage.items()} == {1: 1, 3: 3}


def test_energy_that_is_no_longer_loaded_is_still_added_to(store: Store) -> None:
    store.commit(change(NOW, charges=(charges(A, j1=1),)))
    store.commit(change(NOW + DAY, charges=(charges(A, j1=1),)))
    assert store.load().usage == {(key(1), A): used(2)}


def test_ends_are_forgotten_after_a_week(store: Store) -> None:
    store.commit(change(NOW, over=(key(1),)))
    store.commit(change(NOW + 7 * DAY, over=(key(2),)))
    assert store.load().over == {key(1): NOW, key(2): NOW + 7 * DAY}
    store.commit(change(NOW + 7 * DAY + 1, over=(key(3),)))
    assert set(store.load().over) == {key(2), key(3)}


def test_an_end_is_remembered_from_when_a_run_of_that_name_last_ended(store: Store) -> None:
    store.commit(change(NOW, over=(key(1),)))
    store.commit(change(NOW + 5 * DAY, over=(key(1),)))
    store.commit(change(NOW + 4 * DAY, over=(key(1),)))
    store.commit(change(NOW + 8 * DAY, over=(key(2),)))
    assert store.load().over == {key(1): NOW + 5 * DAY, key(2): NOW + 8 * DAY}


def test_only_the_latest_ends_are_kept(store: Store) -> None:
    many = schema.OVER_KEPT
    store.commit(change(NOW + 1, over=tuple(key(number) for number in range(many))))
    store.commit(change(NOW + 2, over=(key(many + 1), key(many))))
    store.commit(change(NOW, over=(key(many + 2),)))  # out of the spool
    over = list(store.load().over)
    assert len(over) == many
    assert over[-3:] == [key(many - 1), key(many + 1), key(many)]
    assert key(many + 2) not in over


def shares(gpu: GpuUuid = A, at: float = NOW, **more: object) -> Charges:
    """1 mJ each to jobs 1 and 2, with figures of the interval."""
    owners = {key(1): Millijoules(1), key(2): Millijoules(1)}
    return Charges(gpu, owners, at=at, **more)  # type: ignore[arg-type]


def test_figures_of_an_interval_go_to_each_of_its_holders(store: Store) -> None:
    one = shares(basis=Basis.USE, held_ns=5, capped_ns=2, power_mw=Milliwatts(300))
    two = shares(basis=Basis.EVEN, source=EnergySource.POWER, held_ns=7, capped_ns=3, power_mw=Milliwatts(200))
    store.commit(change(charges=(one,)))
    store.commit(change(charges=(two,)))
    both = frozenset({EnergySource.COUNTER, EnergySource.POWER})
    expected = Usage(Millijoules(2), 12, 5, Milliwatts(300), frozenset({Basis.USE, Basis.EVEN}), both)
    assert store.load().usage == {(key(1), A): expected, (key(2), A): expected}


def test_what_no_card_told_stays_unknown_until_one_does(store: Store) -> None:
    store.commit(change(charges=(shares(held_ns=5),)))
    assert store.load().usage[key(1), A] == used(1, held_ns=5)
    store.commit(change(charges=(shares(held_ns=5, capped_ns=0, power_mw=Milliwatts(9)),)))
    assert store.load().usage[key(1), A] == used(2, held_ns=10, capped_ns=0, peak_mw=Milliwatts(9))
    store.commit(change(charges=(shares(held_ns=5),)))
    assert store.load().usage[key(1), A] == used(3, held_ns=15, capped_ns=0, peak_mw=Milliwatts(9))


def test_a_change_that_comes_again_is_charged_once(store: Store) -> None:
    first = change(charges=(charges(A, idle=3, j1=5), charges(B, j1=7)), watermarks=(mark(A, 5), mark(B, 7)))
    again = change(charges=(charges(A, nobodys=2, j1=1),), watermarks=(mark(A, 8, mono=9.0),), over=(key(1),))
    for each in (first, first, again, again, first):
        store.commit(each)
    kept = store.load()
    assert {gpu: usage.energy_mj for (_, gpu), usage in kept.usage.items()} == {A: 6, B: 7}
    assert (kept.idle_mj, kept.unattributed_mj) == ({A: 3}, {A: 2})
    assert kept.accounts_mj == {("", ""): 13}
    assert kept.watermarks == {A: mark(A, 8, mono=9.0), B: mark(B, 7)}


def test_that_owners_have_changed_since_a_watermark_is_kept_whatever_comes_again(store: Store) -> None:
    cut = change(charges=(charges(A, j1=5),), watermarks=(mark(A, 5, key(1)),))
    changed = change(charges=(charges(A),), watermarks=(Watermark(mark(A, 5).sample, None),))
    for each in (cut, changed, changed, cut, merged(cut, changed)):
        store.commit(each)
    assert store.load().watermarks == {A: Watermark(mark(A, 5).sample, None)}
    later = change(charges=(charges(A, nobodys=2),), watermarks=(mark(A, 7, key(1), mono=9.0),))
    for each in (later, changed, later):
        store.commit(each)
    kept = store.load()
    assert kept.watermarks == {A: mark(A, 7, key(1), mono=9.0)}
    assert (kept.usage, kept.unattributed_mj) == ({(key(1), A): used(5)}, {A: 2})


def test_the_monotonic_clock_of_another_boot_says_nothing(store: Store) -> None:
    store.commit(change(charges=(charges(A, j1=5),), watermarks=(mark(A, 5, mono=100.0),)))
    store.commit(change(charges=(charges(A, nobodys=2),), watermarks=(mark(A, 2, mono=1.0, boot="boot-2"),)))
    assert store.load().unattributed_mj == {A: 2}


def test_energy_goes_to_the_account_of_the_note_in_the_same_change(store: Store) -> None:
    notes = (note(1, account="physics", partition="gpu"), note(2, account=UNKNOWN, partition="gpu"), note(3))
    store.commit(change(notes=notes, charges=(charges(A, j1=5, j2=6, j3=7, j4=8),)))
    assert store.load().accounts_mj == {("physics", "gpu"): 5, ("", "gpu"): 6, ("", ""): 15}


def test_an_account_has_no_energy_before_its_first_charge(store: Store) -> None:
    store.commit(change(notes=(note(1, account="physics", partition="gpu"),)))
    assert store.load().accounts_mj == {("physics", "gpu"): 0}
    assert store.load().usage == {}


def test_an_account_is_loaded_for_a_day_after_its_last_job_with_all_that_it_ever_used(store: Store) -> None:
    store.commit(change(NOW, notes=(note(1, account="a"), note(2, account="b")), charges=(charges(A, j1=5, j2=6),)))
    store.commit(change(NOW + DAY / 2, added=(holding(3, account="c"),), charges=(charges(A, j3=1),)))
    store.commit(change(NOW + DAY / 2, charges=(charges(A, j1=2),)))
    store.commit(change(NOW + DAY + 1))
    assert store.load().accounts_mj == {("a", ""): 7, ("c", ""): 1}
    store.commit(change(NOW + 9 * DAY))
    assert store.load().accounts_at == {("c", ""): NOW + DAY / 2}
    assert store.load().accounts_mj == {("c", ""): 1}  # its job holds a GPU
    store.commit(change(NOW + 9 * DAY, charges=(charges(A, j1=1),)))
    assert store.load().accounts_mj == {("a", ""): 8, ("c", ""): 1}


def test_an_ended_run_is_to_be_recorded_with_all_that_is_known_of_it(store: Store) -> None:
    gpus = {A: GpuNote(0, "H100", Milliwatts(300_000)), B: GpuNote(1, "H100", None)}
    running = note(
        1, account="a", qos=UNKNOWN, job_name="\udcff\n", asked="300W", outcome=Outcome.GRANTED, rule="r\ud800"
    )
    store.commit(change(notes=(replace(running, gpus=gpus, rule="other"),), charges=(charges(A, j1=5),)))
    assert store.unrecorded() == []
    ended = replace(running, ended_at=NOW + 60, gpus={A: GpuNote(0, "H100", Milliwatts(250_000))})
    store.commit(change(NOW + 60, notes=(ended,), over=(key(1),), charges=(charges(A, j1=6),)))
    [record] = store.unrecorded()
    assert record.note.facts == running.facts
    assert (record.note.started_at, record.note.ended_at) == (NOW, NOW + 60)
    assert (record.note.asked, record.note.outcome) == ("300W", Outcome.GRANTED)
    assert record.note.gpus == {A: GpuNote(0, "H100", Milliwatts(250_000)), B: gpus[B]}
    assert record.usage == {A: used(11)}  # B was never charged: what it used is not known


def test_a_cap_that_was_set_stays_when_a_later_agent_does_not_know_it(store: Store) -> None:
    store.commit(change(notes=(note(1, gpus={A: GpuNote(0, "H100", Milliwatts(250_000))}),)))
    store.commit(change(notes=(note(1, NOW + 60, gpus={A: GpuNote(1, "H100", None)}),), over=(key(1),)))
    [record] = store.unrecorded()
    assert record.note.gpus == {A: GpuNote(1, "H100", Milliwatts(250_000))}


def test_a_record_that_is_noted_is_never_given_again(store: Store) -> None:
    store.commit(change(notes=(note(1, NOW + 2), note(2, NOW + 1), note(3)), over=(key(1), key(2))))
    assert [record.note.facts.key for record in store.unrecorded()] == [key(2), key(1)]
    store.note_recorded([key(2), key(3), key(9)])
    store.commit(change(notes=(note(2, NOW + 5, rule="late"), note(2)), over=(key(2),)))
    assert [record.note.facts.key for record in store.unrecorded()] == [key(1)]
    store.commit(change(notes=(note(3, NOW + 3),)))  # noting it while it ran said nothing
    assert [record.note.facts.key for record in store.unrecorded()] == [key(1), key(3)]


def test_a_late_note_does_not_make_an_ended_run_run(store: Store) -> None:
    store.commit(change(notes=(note(1, NOW + 2),)))
    store.commit(change(notes=(note(1, rule="x"),)))
    assert [record.note.ended_at for record in store.unrecorded()] == [NOW + 2]


def test_a_run_whose_end_nobody_noted_has_ended_when_it_was_last_charged(store: Store) -> None:
    store.commit(change(NOW, added=(holding(1, A, account="a"), holding(2, B))))
    store.commit(change(NOW + 30, charges=(replace(charges(A, j1=5), at=NOW + 20),)))
    store.commit(change(NOW + 900, removed=(holding(1, A), holding(2, B)), over=(key(1), key(2), key(3))))
    found = {record.note.facts.key: record for record in store.unrecorded()}
    assert {name: record.note.ended_at for name, record in found.items()} == {key(1): NOW + 20, key(2): NOW + 900}
    assert found[key(1)].note.facts == facts(1, account="a")
    assert found[key(1)].note.started_at == 10.5  # when it began to hold
    assert (found[key(1)].usage, found[key(2)].usage) == ({A: used(5)}, {})


def test_nor_does_it_end_before_it_began_when_the_clock_is_set_back(store: Store) -> None:
    begun = replace(holding(1, A), since_at=NOW)
    store.commit(change(NOW, added=(begun,)))
    store.commit(change(NOW - 60, removed=(begun,), over=(key(1),), charges=(replace(charges(A, j1=5), at=NOW - 60),)))
    (record,) = store.unrecorded()
    assert (record.note.started_at, record.note.ended_at) == (NOW, NOW)
    store.note_recorded([key(1)])
    store.commit(change(NOW - 50, notes=(note(1, NOW + 1),)))  # it is no new run of that name
    assert not store.unrecorded()


def test_at_most_a_hundred_are_given_at_once(store: Store) -> None:
    store.commit(change(notes=tuple(note(number, NOW + number) for number in range(1, 151))))
    first = store.unrecorded()
    assert [record.note.facts.key.job_id for record in first] == list(range(1, 101))
    store.note_recorded([record.note.facts.key for record in first])
    assert len(store.unrecorded()) == 50


def test_a_new_run_under_the_name_of_a_recorded_one_begins_with_nothing(store: Store) -> None:
    store.commit(change(notes=(note(1, NOW + 1, gpus={B: GpuNote(1, "V100", None)}),), charges=(charges(A, j1=5),)))
    store.note_recorded([key(1)])
    later = NOW + 100 * DAY
    store.commit(change(later, notes=(note(1, started_at=later),), charges=(charges(A, j1=7),)))
    store.commit(change(later, notes=(note(1, later + 1, started_at=later),)))
    [record] = store.unrecorded()
    assert (record.usage, record.note.gpus, record.note.started_at) == ({A: used(7)}, {}, later)


def test_pruning_forgets_recorded_runs_of_before_and_keeps_the_totals(store: Store) -> None:
    store.commit(change(NOW, notes=(note(1, NOW), note(2, NOW)), charges=(charges(A, j1=5, j2=6, j3=7),)))
    store.commit(change(NOW, notes=(note(4, NOW + 10 * DAY), note(5)), charges=(charges(A, j4=1, j5=1),)))
    store.note_recorded([key(1), key(4)])
    assert store.prune(NOW + DAY) == 1
    assert store.prune(NOW + DAY) == 0
    assert [record.note.facts.key for record in store.unrecorded()] == [key(2)]
    assert store.load().accounts_mj == {("", ""): 20}
    store.commit(change(NOW + 10 * DAY, notes=(note(5, NOW + 20 * DAY),)))
    assert [record.usage for record in store.unrecorded()] == [{A: used(6)}, {A: used(1)}]


def test_nothing_may_follow_closing(store: Store) -> None:
    store.close()
    with pytest.raises(StoreError):
        store.load()
    with pytest.raises(StoreError):
        store.commit(change())


def test_another_thread_may_use_it(store: Store) -> None:
    found: list[Kept] = []

    def work() -> None:
        store.commit(change(added=(holding(1),)))
        found.append(store.load())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].holdings == (holding(1),)
