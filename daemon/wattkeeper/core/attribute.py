"""Whose the energy of an interval is. Sums are exact: integers in, integers out, nothing dropped."""

from collections.abc import Sequence

from wattkeeper.model import Charges, EnergySample, JobKey, Watermark
from wattkeeper.units import Millijoules


def supersedes(watermark: Watermark | None, sample: EnergySample) -> bool:
    """True where the sample is newer than the watermark; an older one, overtaken on its way, says nothing new."""
    if watermark is None or watermark.sample.boot_id != sample.boot_id:
        return True
    return sample.at_mono > watermark.sample.at_mono


def attribute(watermark: Watermark | None, sample: EnergySample, owners: Sequence[JobKey]) -> Charges:
    """Charge what the counter gained since ``watermark``; ``owners`` hold the GPU at the interval's end.

    * Same holders at both ends: theirs, in equal parts, odd millijoules to the first; *idle* where there is none.
    * Different holders (an outage): nobody can say, *unattributed*.
    * The counter restarted (driver reload, reboot): what it shows now came after, from unknown hands, and is
      *unattributed*; what it had gained between the watermark and the restart is lost to every reader of it.

    Jobs + idle + unattributed is the counter's gain, exactly.
    """
    if watermark is None or not supersedes(watermark, sample):
        return Charges(sample.gpu)
    before = watermark.sample
    if before.boot_id != sample.boot_id or sample.energy_mj < before.energy_mj:
        return Charges(sample.gpu, unattributed_mj=sample.energy_mj)
    delta = sample.energy_mj - before.energy_mj
    holders = sorted(set(owners))
    if holders != sorted(set(watermark.owners)):
        return Charges(sample.gpu, unattributed_mj=Millijoules(delta))
    if not holders:
        return Charges(sample.gpu, idle_mj=Millijoules(delta))
    share, odd = divmod(delta, len(holders))
    jobs = {owner: Millijoules(share + (place < odd)) for place, owner in enumerate(holders)}
    return Charges(sample.gpu, jobs_mj=jobs)
