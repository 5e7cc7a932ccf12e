"""Reading GPUs: all at once, each in its own time."""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from wattkeeper.agent.state import State
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
        answers = await self._read_all(wanted)
        found = {uuid: answer for uuid, answer in zip(wanted, answers, strict=True) if answer is not None}
        if note_free:
            for uuid in found:
                self._state.note_free(self._state.gpus[uuid])
        if wanted:
            took = self._clock.mono() - begun
            self._state.sources["nvml"] = SourceState(up=len(found) == len(wanted), read_s=took)
        return found

    async def _read_all(self, wanted: Sequence[GpuUuid]) -> list[GpuReading | None]:
        """One after the other, because a driver has one lock and Python another, and threads that queue for both
        cost more than the reading. Once a GPU has not answered in time, the rest all at once: one deadline for all.
        """
        answers: list[GpuReading | None] = []
        for place, uuid in enumerate(wanted):
            answers.append(await self._read(uuid))
            if answers[-1] is None:
                rest = await asyncio.gather(*(self._read(other) for other in wanted[place + 1 :]))
                return [*answers, *rest]
        return answers

    async def _read(self, uuid: GpuUuid) -> GpuReading | None:
        gpu = self._state.gpus[uuid]
        if self._reader.stalled(uuid):
            return None
        try:
            reading = await self._reader.read(uuid, READ_DEADLINE_S)
        except DeviceError as error:
            self.driver_gone |= error.kind is Kind.NO_DRIVER
            if gpu.read_error != str(error):
                log.error("gpu=%d not read: %s", gpu.info.minor, error)
            gpu.read_error = str(error)
            return None
        if gpu.read_error is not None:
            log.info("gpu=%d reads again", gpu.info.minor)
            gpu.read_error = None
        if gpu.reading is None or reading.at_mono >= gpu.reading.at_mono:
            gpu.reading = reading
        return reading
