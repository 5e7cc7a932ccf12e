"""Closing energy intervals: what the counters gained, charged to whoever held the GPUs."""

from collections.abc import Iterable, Mapping

from wattkeeper.agent.state import Gpu, State
from wattkeeper.core.attribute import attribute, supersedes
from wattkeeper.model import Charges, EnergySample, GpuReading, GpuUuid, JobKey, Watermark
from wattkeeper.units import Millijoules

Cut = tuple[tuple[Charges, ...], tuple[Watermark, ...]]


def sample_of(state: State, gpu: Gpu, reading: GpuReading | None) -> EnergySample | None:
    """The counter in a reading; None where there is no reading or the card has no counter."""
    if reading is None or reading.energy_mj is None:
        return None
    return EnergySample(gpu.info.uuid, reading.energy_mj, reading.at, reading.at_mono, state.boot_id)


def cut(state: State, readings: Mapping[GpuUuid, GpuReading], after: Mapping[GpuUuid, tuple[JobKey, ...]]) -> Cut:
    """Close the interval of each GPU in ``after``, whose owners are those from now on.

    Gives the charges and the watermarks to be written in one transaction with the change of holdings. A GPU whose
    counter could not be read keeps its watermark and with it its old owners: the interval that it leaves open ends
    with other owners than it began with, and is nobody's.
    """
    charges, watermarks = [], []
    for uuid, owners in after.items():
        gpu = state.gpus[uuid]
        sample = sample_of(state, gpu, readings.get(uuid))
        if sample is None or not supersedes(gpu.watermark, sample):
            continue
        charges.append(attribute(gpu.watermark, sample, state.owners(uuid)))
        watermarks.append(Watermark(sample, owners))
    return tuple(charges), tuple(watermarks)


def settle(state: State, charges: Iterable[Charges], watermarks: Iterable[Watermark]) -> None:
    """Bring the state to what the transaction wrote."""
    for charge in charges:
        gpu = state.gpus[charge.gpu]
        gpu.idle_mj = Millijoules(gpu.idle_mj + charge.idle_mj)
        gpu.unattributed_mj = Millijoules(gpu.unattributed_mj + charge.unattributed_mj)
        for key, energy in charge.jobs_mj.items():
            job = state.jobs.get(key)
            if job is not None:
                job.energy_mj[charge.gpu] = Millijoules(job.energy_mj.get(charge.gpu, 0) + energy)
    for watermark in watermarks:
        state.gpus[watermark.sample.gpu].watermark = watermark
