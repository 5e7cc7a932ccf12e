"""Whose the energy of an interval is. Sums are exact: integers in, integers out, nothing dropped."""

from collections.abc import Mapping, Sequence
from functools import partial

from wattkeeper.model import Basis, Charges, EnergySample, Gap, JobKey, Usage, Watermark
from wattkeeper.units import Millijoules, Milliwatts

MOST_OVER = 3
"""A GPU's mean power over any interval is less than so many times its highest limit, whatever its spikes. The counter
of a superchip covers its CPU and memory too, with which a module draws more than twice what its GPU alone may."""

SLACK_S = 1.0
"""So much longer than an interval may be what the counter gained in it: the counter moves in steps of up to 100 ms, and
the two readings are stamped before they are made."""


_NOTHING = Usage(Millijoules(0))


def supersedes(watermark: Watermark | None, sample: EnergySample) -> bool:
    """True where the sample is newer than the watermark; an older one, overtaken on its way, says nothing new."""
    if watermark is None or watermark.sample.boot_id != sample.boot_id:
        return True
    return sample.at_mono > watermark.sample.at_mono


def attribute(
    watermark: Watermark | None,
    sample: EnergySample,
    owners: Sequence[JobKey],
    *,
    weights: Mapping[JobKey, int] | None = None,
    weighed_by: Basis = Basis.USE,
    most_mw: Milliwatts | None = None,
) -> Charges:
    """Charge what the counter gained since ``watermark``; ``owners`` hold the GPU at the interval's end.

    * The same holders at both ends: theirs, by ``weights`` where there are several and at least one weighs anything,
      else in equal parts; *idle* where there is no holder.
    * Different holders (an outage), or others in between: nobody can say, *unattributed*.
    * The counter restarted (driver reload, GPU reset, reboot): what it shows now came after, from unknown hands, and is
      *unattributed*; what it had gained between the watermark and the restart is lost to every reader of it.
    * The counter moved as no GPU can draw, given its highest limit ``most_mw``: of what it gained, the most that the
      GPU can have drawn is *unattributed*; what it fell by, and what it shows then, is not counted.

    Jobs + idle + unattributed is the counter's gain, exactly, as far as a GPU can have drawn it.
    """
    if watermark is None or not supersedes(watermark, sample):
        return Charges(sample.gpu, source=sample.source, at=sample.at)
    before = watermark.sample
    whole = _interval(before, sample)
    if before.boot_id != sample.boot_id:
        return whole(unattributed_mj=sample.energy_mj, gap=Gap.RESTART)
    gained, most_mj = sample.energy_mj - before.energy_mj, _most_mj(most_mw, sample.at_mono - before.at_mono)
    if gained < 0 or before.source is not sample.source:
        if most_mj is not None and sample.energy_mj > most_mj:
            return whole(gap=Gap.JUMP)
        return whole(unattributed_mj=sample.energy_mj, gap=Gap.RESTART)
    if most_mj is not None and gained > most_mj:
        return whole(unattributed_mj=Millijoules(most_mj), gap=Gap.JUMP)
    holders = sorted(set(owners))
    if watermark.owners is None or holders != sorted(set(watermark.owners)):
        return whole(unattributed_mj=Millijoules(gained), gap=Gap.OUTAGE)
    if not holders:
        return whole(idle_mj=Millijoules(gained))
    if len(holders) == 1:
        return whole(jobs_mj={holders[0]: Millijoules(gained)}, basis=Basis.SOLE)
    known = {holder: max(0, (weights or {}).get(holder, 0)) for holder in holders}
    basis = weighed_by if any(known.values()) else Basis.EVEN
    return whole(jobs_mj=_divide(gained, known if any(known.values()) else dict.fromkeys(holders, 1)), basis=basis)


def added(before: Usage | None, energy_mj: Millijoules, charge: Charges) -> Usage:
    """What a job has used of a GPU, after an interval of which so much energy is its own."""
    before = before or _NOTHING
    capped = [ns for ns in (before.capped_ns, charge.capped_ns) if ns is not None]
    peaks = [mw for mw in (before.peak_mw, charge.power_mw) if mw is not None]
    bases, sources = before.bases, before.sources
    if charge.basis is not None and charge.basis not in bases:
        bases |= {charge.basis}
    if charge.source not in sources:
        sources |= {charge.source}
    return Usage(
        energy_mj=Millijoules(before.energy_mj + energy_mj),
        held_ns=before.held_ns + charge.held_ns,
        capped_ns=sum(capped) if capped else None,
        peak_mw=max(peaks) if peaks else None,
        bases=bases,
        sources=sources,
    )


def _interval(before: EnergySample, sample: EnergySample) -> partial[Charges]:
    """An interval's charges but for whose they are. How long it was is known within one boot only."""
    held_ns = capped_ns = None
    if before.boot_id == sample.boot_id:
        held_ns = round((sample.at_mono - before.at_mono) * 1e9)
        if before.capped_ns is not None and sample.capped_ns is not None and sample.capped_ns >= before.capped_ns:
            capped_ns = min(held_ns, sample.capped_ns - before.capped_ns)
    return partial(
        Charges,
        sample.gpu,
        source=sample.source,
        held_ns=held_ns or 0,
        capped_ns=capped_ns,
        power_mw=sample.power_mw,
        at=sample.at,
    )


def _most_mj(most_mw: Milliwatts | None, seconds: float) -> int | None:
    return None if most_mw is None else int(MOST_OVER * most_mw * (seconds + SLACK_S))


def _divide(amount: int, weights: Mapping[JobKey, int]) -> dict[JobKey, Millijoules]:
    """In proportion, to the last millijoule: what rounding leaves goes to the largest remainders."""
    total = sum(weights.values())
    parts = {key: divmod(amount * weight, total) for key, weight in weights.items()}
    left = amount - sum(whole for whole, _ in parts.values())
    first = sorted(parts, key=lambda key: (-parts[key][1], key))[:left]
    return {key: Millijoules(whole + (key in first)) for key, (whole, _) in parts.items()}
