"""What each account has used on this node: totals that only grow, and which of them are shown."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from wattkeeper.model import Account
from wattkeeper.snapshot import AccountView
from wattkeeper.units import Millijoules

SHOWN_S = 86_400.0
"""An account without a job and without a charge for so long is shown no more. Its total is kept."""


@dataclass(slots=True)
class _Total:
    """``base_mj`` and ``born_mono``: the total when, and the time at which, it began to be shown by this agent."""

    energy_mj: Millijoules
    base_mj: Millijoules
    last_mono: float
    born_mono: float | None
    shown: bool = True


class Accounts:
    """Totals by account and partition, charged in step with the ledger's."""

    def __init__(self) -> None:
        self._totals: dict[Account, _Total] = {}

    def take_up(
        self,
        kept_mj: Mapping[Account, Millijoules],
        idle_s: Mapping[Account, float],
        resting_mj: Mapping[Account, Millijoules],
        now_mono: float,
    ) -> None:
        """Add the ledger's totals of before; ``idle_s``: how long ago each was last charged.

        ``resting``: those that are shown no more. They go on from where they were once they come back, as in the
        ledger: what is shown after the next restart is no more than what was shown before it.
        """
        since, self._totals = self._totals, {}
        for account, energy in resting_mj.items():
            self._totals[account] = _Total(energy, energy, now_mono, None, shown=False)
        for account, energy in kept_mj.items():
            self._totals[account] = _Total(energy, energy, now_mono - idle_s.get(account, 0.0), None)
        for account, total in since.items():
            self.charge(account, total.energy_mj, now_mono)

    def expect(self, account: Account, now_mono: float) -> None:
        """A job of this account begins: from now on there is a total to show, though it be 0."""
        total = self._totals.get(account)
        if total is None:
            self._totals[account] = _Total(Millijoules(0), Millijoules(0), now_mono, now_mono)
            return
        if not total.shown:
            total.base_mj, total.born_mono, total.shown = total.energy_mj, now_mono, True
        total.last_mono = max(total.last_mono, now_mono)

    def charge(self, account: Account, energy_mj: Millijoules, at_mono: float) -> None:
        """Add to an account's total."""
        total = self._totals.get(account)
        if total is None or not total.shown:
            self.expect(account, at_mono)
            total = self._totals[account]
        total.last_mono = max(total.last_mono, at_mono)
        total.energy_mj = Millijoules(total.energy_mj + energy_mj)

    def view(self, now_mono: float, busy: Callable[[], Collection[Account]]) -> dict[Account, AccountView]:
        """The totals to show. ``busy``: accounts with a job here, which are shown whatever they were charged."""
        idle = [account for account, total in self._totals.items() if now_mono - total.last_mono > SHOWN_S]
        for account in set(idle).difference(busy()) if idle else ():
            self._totals[account].shown = False
        return {
            account: AccountView(total.energy_mj, total.base_mj, total.born_mono)
            for account, total in self._totals.items()
            if total.shown
        }
