"""Closing energy intervals: what the counters gained, charged to whoever held the GPUs."""

from collections.abc import Iterable, Mapping

from wattkeeper.agent.state import Gpu, State
from wattkeeper.agent.tally import Tally
from wattkeeper.core.attribute import added, attribute, supersedes
from wattkeeper.ledger.rows import account_of
from wattkeeper.model import (
    Basis,
    Charges,
    EnergySample,
    EnergySource,
    Gap,
    GpuReading,
    GpuUuid,
    JobKey,
    Watermark,
)
from wattkeeper.snapshot import fresh_s
from wattkeeper.units import Millijoules

Cut = tuple[tuple[Charges, ...], tuple[Watermark, ...]]


def sample_of(state: State, gpu: Gpu, reading: GpuReading | None) -> EnergySample | None:
    """The GPU's energy at a reading: its counter, or where the card has none its power, integrated since before.

    None where there is no reading, or it says neither. A card whose counter was ever read, in an earlier boot too, has
    one (all do from Volta on): a reading without it is a reading that failed.
    """
    if reading is None:
        return None
    source, energy_mj = EnergySource.COUNTER, reading.energy_mj
    if energy_mj is None:
        mark = gpu.watermark
        if reading.power_mw is None or (mark is not None and mark.sample.source is EnergySource.COUNTER):
            return None
        source, energy_mj = EnergySource.POWER, _integrated(state, _of_this_boot(state, gpu), reading)
    return EnergySample(
        gpu.info.uuid,
        energy_mj,
        reading.at,
        reading.at_mono,
        state.boot_id,
        source,
        power_mw=reading.power_mw,
        capped_ns=reading.capped_ns,
    )


def _of_this_boot(state: State, gpu: Gpu) -> EnergySample | None:
    watermark = gpu.watermark
    return watermark.sample if watermark is not None and watermark.sample.boot_id == state.boot_id else None


def _integrated(state: State, before: EnergySample | None, reading: GpuReading) -> Millijoules:
    """Energy since this boot's first look, by trapezoids; over a hole nobody knows, so it stands still there."""
    if before is None:
        return Millijoules(0)
    seconds = reading.at_mono - before.at_mono
    if reading.power_mw is None or not 0 < seconds <= fresh_s(state.settings.interval):
        return before.energy_mj
    first_mw = before.power_mw if before.power_mw is not None else reading.power_mw
    return Millijoules(before.energy_mj + round((first_mw + reading.power_mw) / 2 * seconds))


def cut(state: State, readings: Mapping[GpuUuid, GpuReading], after: Mapping[GpuUuid, tuple[JobKey, ...]]) -> Cut:
    """Close the interval of each GPU in ``after``, whose owners are those from now on.

    Gives the charges and the watermarks, of the same GPUs in the same order, to be written in one transaction with the
    change of holdings. A GPU whose owners change while its counter cannot be read keeps its watermark, which has no
    owners from then on: the interval that it leaves open is nobody's, though it ends with the owners it began with.
    """
    charges, watermarks = [], []
    for uuid, owners in after.items():
        gpu = state.gpus[uuid]
        mark, sample = gpu.watermark, sample_of(state, gpu, readings.get(uuid))
        if sample is not None and supersedes(mark, sample):
            charges.append(_charges(state, gpu, sample))
            watermarks.append(Watermark(sample, owners))
        elif mark is not None and owners != state.owners(uuid):
            charges.append(Charges(uuid, source=mark.sample.source, at=mark.sample.at))
            watermarks.append(Watermark(mark.sample, None))
    return tuple(charges), tuple(watermarks)


def _charges(state: State, gpu: Gpu, sample: EnergySample) -> Charges:
    if sample.source is EnergySource.POWER and _is_a_hole(state, gpu, sample):
        return Charges(sample.gpu, source=sample.source, gap=Gap.OUTAGE, at=sample.at)
    weights, by = _weights(state, gpu, sample)
    owners = state.owners(sample.gpu)
    return attribute(gpu.watermark, sample, owners, weights=weights, weighed_by=by, most_mw=gpu.info.max_mw)


def _is_a_hole(state: State, gpu: Gpu, sample: EnergySample) -> bool:
    """True where power was not looked at for so long that what was drawn meanwhile is not known."""
    before = _of_this_boot(state, gpu)
    if before is None or before.source is not EnergySource.POWER:
        return False
    return sample.at_mono - before.at_mono > fresh_s(state.settings.interval)


def _weights(state: State, gpu: Gpu, sample: EnergySample) -> tuple[Mapping[JobKey, int] | None, Basis]:
    """What the interval that ends with this sample is divided by, where the GPU has several holders."""
    holders = state.holders(sample.gpu)
    if len(holders) > 1:
        if all(holding.slices for holding in holders):
            return {holding.job.key: holding.slices for holding in holders}, Basis.SLICES
        if gpu.use is not None and gpu.use[0] == sample.at_mono:
            return gpu.use[1], Basis.USE
    return None, Basis.USE


def settle(state: State, tally: Tally, charges: Iterable[Charges], watermarks: Iterable[Watermark]) -> None:
    """Bring the state to what the transaction wrote, and what waited for it."""
    take_in(state, tally, charges, watermarks)
    count(state)


def take_in(state: State, tally: Tally, charges: Iterable[Charges], watermarks: Iterable[Watermark]) -> None:
    """Bring the state to what was charged, but for the totals, which have to wait for ``count``."""
    for charge, watermark in zip(charges, watermarks, strict=True):
        gpu = state.gpus[charge.gpu]
        gpu.watermark = watermark
        if charge.gap is not None:
            tally.energy_gaps[gpu.info.minor, charge.gap] += 1
        for key, energy in charge.jobs_mj.items():
            job = state.jobs.get(key)
            if job is not None:
                job.usage[charge.gpu] = added(job.usage.get(charge.gpu), energy, charge)
        state.uncounted.append((charge, watermark.sample.at_mono))


def count(state: State) -> None:
    """Add what was taken in to the totals that counters show. It is in the ledger, so no restart takes it back."""
    for charge, at_mono in state.uncounted:
        gpu = state.gpus[charge.gpu]
        gpu.idle_mj = Millijoules(gpu.idle_mj + charge.idle_mj)
        gpu.unattributed_mj = Millijoules(gpu.unattributed_mj + charge.unattributed_mj)
        for key, energy in charge.jobs_mj.items():
            job = state.jobs.get(key)
            if job is not None:
                job.counted_mj[charge.gpu] = Millijoules(job.counted_mj.get(charge.gpu, 0) + energy)
                state.accounts.charge(account_of(job.facts), energy, at_mono)
    state.uncounted.clear()
