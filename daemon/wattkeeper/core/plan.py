"""Which limits to write, in which order, so that what is read back becomes what is wanted."""

from collections.abc import Collection, Mapping, Sequence

from wattkeeper.model import Action, GpuReading, GpuUuid, Target
from wattkeeper.units import Milliwatts

TOLERANCE_MW = 1_000
"""Limits closer than this are the same: drivers round what they are asked for to their own steps."""


def same_limit(one: Milliwatts, other: Milliwatts) -> bool:
    """True where two limits differ by no more than a driver's rounding."""
    return abs(one - other) <= TOLERANCE_MW


def plan(
    targets: Sequence[Target], readings: Mapping[GpuUuid, GpuReading], baselines: Collection[GpuUuid]
) -> tuple[Action, ...]:
    """The writes still needed, every lowering before every raise.

    So no prefix of it lets the node draw more than both its ends, applying a prefix and planning again gives the
    rest, and planning after all of it gives nothing. A GPU whose limit could not be read, whose baseline is not
    known, or that is only observed is not written.
    """
    actions = []
    for target in targets:
        reading = readings.get(target.gpu)
        if target.limit_mw is None or target.observe or target.gpu not in baselines:
            continue
        if reading is None or reading.requested_mw is None or same_limit(reading.requested_mw, target.limit_mw):
            continue
        actions.append(Action(target.gpu, reading.requested_mw, target.limit_mw, target.why))
    return tuple(sorted(actions, key=lambda action: not action.lowers))
