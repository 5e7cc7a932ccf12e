"""Two changes made one, for a ledger that cannot be written for long: nothing is lost, little memory is held."""

from collections.abc import Iterable
from dataclasses import replace

from wattkeeper.ledger.rows import local_day
from wattkeeper.model import Charges, Holding
from wattkeeper.protocols import Change
from wattkeeper.units import Millijoules, Milliwatts


def merged(first: Change, second: Change) -> Change:
    """The change that leaves a ledger as ``first`` and then ``second`` do.

    Ends and accounts are dated by the second; a run's charges go to the account that its last note names.
    """
    gone = {_name(holding) for holding in second.removed}
    again = {_name(holding) for holding in second.added}
    notes = {note.facts.key: note for note in first.notes}
    for note in second.notes:
        before = notes.pop(note.facts.key, None)
        gpus = {**before.gpus, **note.gpus} if before else note.gpus
        ended_at = before.ended_at if before and before.ended_at is not None else note.ended_at
        notes[note.facts.key] = replace(note, gpus=gpus, ended_at=ended_at)
    watermarks = {mark.sample.gpu: mark for mark in (*first.watermarks, *second.watermarks)}
    return Change(
        boot_id=second.boot_id,
        at=second.at,
        removed=(*first.removed, *second.removed),
        added=(*(h for h in first.added if _name(h) not in gone | again), *second.added),
        over=tuple(dict.fromkeys((*first.over, *second.over))),
        charges=summed((*first.charges, *second.charges)),
        watermarks=tuple(watermarks.values()),
        holds={**first.holds, **second.holds},
        notes=tuple(notes.values()),
    )


def summed(charges: Iterable[Charges]) -> tuple[Charges, ...]:
    """The same energy, time and peaks, with what goes to the same runs on the same day in one."""
    sums: dict[tuple[object, ...], Charges] = {}
    for charge in charges:
        alike = (charge.gpu, frozenset(charge.jobs_mj), charge.basis, charge.source, charge.gap, local_day(charge.at))
        sums[alike] = _sum(sums[alike], charge) if alike in sums else charge
    return tuple(sums.values())


def _sum(first: Charges, second: Charges) -> Charges:
    capped_ns = [ns for ns in (first.capped_ns, second.capped_ns) if ns is not None]
    power_mw: list[Milliwatts] = [mw for mw in (first.power_mw, second.power_mw) if mw is not None]
    return replace(
        second,
        jobs_mj={key: Millijoules(energy + second.jobs_mj[key]) for key, energy in first.jobs_mj.items()},
        idle_mj=Millijoules(first.idle_mj + second.idle_mj),
        unattributed_mj=Millijoules(first.unattributed_mj + second.unattributed_mj),
        held_ns=first.held_ns + second.held_ns,
        capped_ns=sum(capped_ns) if capped_ns else None,
        power_mw=max(power_mw, default=None),
    )


def _name(holding: Holding) -> tuple[object, ...]:
    return holding.job.key, holding.gpu
