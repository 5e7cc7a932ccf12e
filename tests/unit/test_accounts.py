"""The totals of accounts: how long they are shown, and how they go on."""

from wattkeeper.agent.accounts import SHOWN_S, Accounts
from wattkeeper.units import Millijoules

ML, BIO = ("ml", "gpu"), ("bio", "gpu")


def shown(accounts: Accounts, now: float, *busy: tuple[str, str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Total and beginning of each account."""
    return {name: (view.energy_mj, view.base_mj) for name, view in accounts.view(now, lambda: busy).items()}


def test_a_total_is_shown_for_a_day_after_its_last_charge_and_while_it_has_a_job() -> None:
    accounts = Accounts()
    accounts.expect(ML, 0.0)
    accounts.charge(ML, Millijoules(5), 10.0)
    assert shown(accounts, 10.0 + SHOWN_S) == {ML: (5, 0)}
    assert shown(accounts, 11.0 + SHOWN_S, ML) == {ML: (5, 0)}
    assert shown(accounts, 12.0 + SHOWN_S) == {}


def test_after_its_rest_it_goes_on_from_where_it_was_and_begins_there() -> None:
    accounts = Accounts()
    accounts.charge(ML, Millijoules(5), 0.0)
    later = SHOWN_S + 1.0
    assert shown(accounts, later) == {}
    accounts.expect(ML, later + 1)
    accounts.charge(ML, Millijoules(2), later + 2)
    assert shown(accounts, later + 2) == {ML: (7, 5)}
    assert accounts.view(later + 2, tuple)[ML].born_mono == later + 1


def test_totals_of_before_are_not_new_and_those_that_rested_stay_at_rest() -> None:
    accounts = Accounts()
    kept = {ML: Millijoules(5)}
    accounts.take_up(kept, {ML: SHOWN_S - 10}, {BIO: Millijoules(9)}, 100.0)
    assert accounts.view(100.0, tuple)[ML].born_mono is None
    assert shown(accounts, 100.0) == {ML: (5, 5)}
    assert shown(accounts, 120.0) == {}
    accounts.expect(BIO, 130.0)
    accounts.charge(BIO, Millijoules(1), 131.0)
    assert shown(accounts, 131.0) == {BIO: (10, 9)}
