"""Reading GPUs into the state, and telling which cannot be read."""

import logging
from collections.abc import Iterable

from wattkeeper.agent.state import Gpu, State
from wattkeeper.model import GpuReading, GpuUuid
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.protocols import Clock, GpuReader
from wattkeeper.snapshot import SourceState

log = logging.getLogger("wattkeeper.gpus")

READ_DEADLINE_S = 0.25


class Observer:
    """Reads GPUs into the state. A GPU that hangs is left out until its call comes back."""

    def __init__(self, state: State, reader: GpuReader, clock: Clock) -> None:
        self._state = state
        self._reader = reader
        self._clock = clock
        self.driver_gone = False

    async def read(self, gpus: Iterable[GpuUuid], *, note_free: bool = True) -> dict[GpuUuid, GpuReading]:
        """Fresh readings of those GPUs that answer within the deadline, also kept in the state.

        ``note_free`` False: what is read says nothing of a free GPU's limit, because a job may already be on it.
        """
        begun = self._clock.mono()
        wanted = [uuid for uuid in gpus if uuid in self._state.gpus]
        answers = await self._reader.read([uuid for uuid in wanted if not self._reader.stalled(uuid)], READ_DEADLINE_S)
        found = {uuid: answer for uuid, answer in answers.items() if isinstance(answer, GpuReading)}
        for uuid, answer in answers.items():
            self._note(self._state.gpus[uuid], answer)
            if note_free and uuid in found:
                self._state.note_free(self._state.gpus[uuid])
        if wanted:
            took = self._clock.mono() - begun
            self._state.sources["nvml"] = SourceState(up=len(found) == len(wanted), read_s=took)
        return found

    def _note(self, gpu: Gpu, answer: GpuReading | DeviceError) -> None:
        if isinstance(answer, DeviceError):
            self.driver_gone |= answer.kind is Kind.NO_DRIVER
            if gpu.read_error != str(answer):
                log.error("gpu=%d not read: %s", gpu.info.minor, answer)
            gpu.read_error = str(answer)
            return
        if gpu.read_error is not None:
            log.info("gpu=%d reads again", gpu.info.minor)
            gpu.read_error = None
        if gpu.reading is None or answer.at_mono >= gpu.reading.at_mono:
            gpu.reading = answer
