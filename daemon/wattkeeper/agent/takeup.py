"""What a ledger must hold that is opened only now: the agent has gone on meanwhile, and knows better."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from wattkeeper.core.attribute import attribute
from wattkeeper.model import Charges, Gap, GpuUuid, Holding, JobKey, Watermark
from wattkeeper.protocols import Change, Kept
from wattkeeper.snapshot import AdminHold
from wattkeeper.units import Millijoules

log = logging.getLogger("wattkeeper.ledger")


class Known:
    """What the agent knows to be in its ledger: holdings, admin holds, and of each GPU the watermark.

    Of a GPU of which nothing was written yet it is the first watermark that is to be.
    """

    def __init__(self, kept: Kept) -> None:
        self._holdings = {(h.job.key, h.gpu): h for h in kept.holdings}
        self._watermarks = dict(kept.watermarks)
        self._holds: dict[GpuUuid, AdminHold | None] = dict(kept.holds)

    def see(self, change: Change) -> None:
        """A change is to be written."""
        for mark in change.watermarks:
            self._watermarks.setdefault(mark.sample.gpu, mark)

    def wrote(self, change: Change) -> None:
        """A change has been written."""
        for holding in change.removed:
            self._holdings.pop((holding.job.key, holding.gpu), None)
        self._holdings.update({(h.job.key, h.gpu): h for h in change.added})
        self._watermarks.update({mark.sample.gpu: mark for mark in change.watermarks})
        self._holds.update(change.holds)

    def reconcile(self, kept: Kept, later: Sequence[Change]) -> Change | None:
        """What brings a ledger that holds ``kept`` to what is known, before ``later`` is written to it; None: nothing.

        The agent's holdings and admin holds win: runs that only the ledger holds have ended. What a GPU's counter
        gained between the ledger's watermark and the agent's is unattributed.
        """
        theirs = {(h.job.key, h.gpu): h for h in kept.holdings}
        gone = tuple(h for name, h in theirs.items() if name not in self._holdings)
        held = {key for key, _ in self._holdings} | {h.job.key for change in later for h in change.added}
        marks = [mark for gpu, mark in self._watermarks.items() if _is_other(kept.watermarks.get(gpu), mark)]
        added = tuple(h for name, h in self._holdings.items() if name not in theirs)
        if not later or not (gone or added or marks or kept.holds != self._standing()):
            return None
        log.warning("the ledger is taken up: %d of its holdings are over, %d counters moved", len(gone), len(marks))
        return Change(
            boot_id=later[0].boot_id,
            at=later[0].at,
            removed=gone,
            added=added,
            over=_ended(gone, held),
            charges=tuple(_gap(kept.watermarks.get(mark.sample.gpu), mark) for mark in marks),
            watermarks=tuple(marks),
            holds={**dict.fromkeys(kept.holds), **self._holds},
        )

    def _standing(self) -> dict[GpuUuid, AdminHold]:
        return {gpu: hold for gpu, hold in self._holds.items() if hold is not None}


def with_gaps(kept: Kept, gaps: Sequence[Charges]) -> Kept:
    """What a ledger kept, and what nobody charged between its watermarks and the agent's."""
    unattributed_mj = dict(kept.unattributed_mj)
    for gap in gaps:
        unattributed_mj[gap.gpu] = Millijoules(unattributed_mj.get(gap.gpu, 0) + gap.unattributed_mj)
    return replace(kept, unattributed_mj=unattributed_mj)


def _is_other(theirs: Watermark | None, ours: Watermark) -> bool:
    return theirs != ours


def _ended(gone: Sequence[Holding], held: set[JobKey]) -> tuple[JobKey, ...]:
    return tuple(sorted({h.job.key for h in gone} - held))


def _gap(theirs: Watermark | None, ours: Watermark) -> Charges:
    """What the counter gained while the agent had no ledger and the ledger no agent."""
    found = attribute(theirs, ours.sample, ())
    energy = found.idle_mj + found.unattributed_mj + sum(found.jobs_mj.values())
    gpu: GpuUuid = ours.sample.gpu
    gap = found.gap or (Gap.OUTAGE if energy else None)
    return Charges(gpu, unattributed_mj=Millijoules(energy), source=found.source, gap=gap, at=ours.sample.at)
