"""Reading GPUs into the state, and telling which cannot be read."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from wattkeeper.agent.state import Gpu, State
from wattkeeper.core.attribute import MOST_OVER
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.model import GpuInfo, GpuReading, GpuUuid, JobKey
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.protocols import Clock, GpuReader
from wattkeeper.slurm.processes import Processes
from wattkeeper.snapshot import SourceState

log = logging.getLogger("wattkeeper.gpus")

READ_DEADLINE_S = 0.25
PLACE_DEADLINE_S = 0.1
"""How long it may take to find whose the processes on a GPU are."""


class Observer:
    """Reads GPUs into the state. A GPU that hangs is left out until its call comes back."""

    def __init__(self, state: State, reader: GpuReader, clock: Clock, processes: Processes) -> None:
        self._state = state
        self._reader = reader
        self._clock = clock
        self._processes = processes
        self._placing: DeviceThread | None = None
        self.driver_gone = False

    async def read(self, gpus: Iterable[GpuUuid], *, note_free: bool = True) -> dict[GpuUuid, GpuReading]:
        """Fresh readings of those GPUs that answer within the deadline, also kept in the state.

        ``note_free`` False: what is read says nothing of a free GPU's limit, because a job may already be on it.
        """
        begun = self._clock.mono()
        wanted = [uuid for uuid in gpus if uuid in self._state.gpus]
        asked = [uuid for uuid in wanted if not self._reader.stalled(uuid)]
        shared = [uuid for uuid in asked if self._is_weighed(uuid)]
        told = await self._reader.read(asked, READ_DEADLINE_S, shared)
        answers = {uuid: _believable(self._state.gpus[uuid].info, answer) for uuid, answer in told.items()}
        found = {uuid: answer for uuid, answer in answers.items() if isinstance(answer, GpuReading)}
        for uuid, answer in answers.items():
            self._note(self._state.gpus[uuid], answer, begun)
            if note_free and uuid in found:
                self._state.note_free(self._state.gpus[uuid])
        for uuid in shared:
            if uuid in found:
                await self._weigh(self._state.gpus[uuid], found[uuid])
        if wanted:
            took = self._clock.mono() - begun
            self._state.sources["nvml"] = SourceState(up=len(found) == len(wanted), read_s=took)
        return found

    def _is_weighed(self, uuid: GpuUuid) -> bool:
        """True where it matters who uses a GPU how much: several hold it, and not by slices of it."""
        holders = self._state.holders(uuid)
        return len(holders) > 1 and not all(holding.slices for holding in holders)

    async def _weigh(self, gpu: Gpu, reading: GpuReading) -> None:
        """Note how much each holder has used a GPU. In a thread: /proc of a process that hangs can hang too."""
        gpu.use = None
        by_pid, holders = reading.use_by_pid, self._state.holders(gpu.info.uuid)
        if not by_pid or (self._placing is not None and self._placing.stalled):
            return
        self._placing = self._placing or DeviceThread("processes")

        def weigh() -> Mapping[JobKey, int] | None:
            return self._processes.weigh(by_pid, holders)

        try:
            weights = await self._placing.run("weigh", weigh, PLACE_DEADLINE_S)
        except DeviceError as error:
            log.warning("gpu=%d its energy is divided evenly: %s", gpu.info.minor, error)
            return
        if weights is not None:
            gpu.use = (reading.at_mono, weights)

    def _note(self, gpu: Gpu, answer: GpuReading | DeviceError, begun_mono: float) -> None:
        if isinstance(answer, DeviceError):
            self.driver_gone |= answer.kind is Kind.NO_DRIVER
            if gpu.read_error != str(answer):
                log.error("gpu=%d not read: %s", gpu.info.minor, answer)
            gpu.read_error = str(answer)
            return
        if gpu.read_error is not None:
            log.info("gpu=%d reads again", gpu.info.minor)
            gpu.read_error = None
        if gpu.reading is None:
            gpu.reading = answer
        elif answer.at_mono >= gpu.reading.at_mono:
            gpu.reading = answer if begun_mono > gpu.written_mono else _but_for_limits(answer, gpu.reading)


def _believable(info: GpuInfo, answer: GpuReading | DeviceError) -> GpuReading | DeviceError:
    """The answer; a power that no such GPU can draw is not to be had."""
    if isinstance(answer, DeviceError) or answer.power_mw is None or answer.power_mw <= MOST_OVER * info.max_mw:
        return answer
    return replace(answer, power_mw=None)


def _but_for_limits(answer: GpuReading, known: GpuReading) -> GpuReading:
    """A reading that was begun before a limit was written, and may have the one from before: the newer one stands."""
    return replace(answer, requested_mw=known.requested_mw, enforced_mw=known.enforced_mw)
