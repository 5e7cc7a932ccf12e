"""The way from the loop to what sets limits: in a thread for each device, here or in the actuator's process."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.privileged.errors import DeviceError, Kind

T = TypeVar("T")

SOCKET = "actuator.sock"
"""In ``run_dir``; systemd makes it (wattkeeper-actuator.socket), for the agent's user alone."""

LONGEST_ANSWER = 65_536
CONNECT_TIMEOUT_S = EVIDENCE_TIMEOUT_S = 1.0


class SetsLimits(Protocol):
    """What ``privileged.limits.Limits`` does, by itself or on behalf of the actuator. Blocks. Raises DeviceError."""

    def set_limit(self, uuid: str, limit_mw: int) -> int: ...
    def claim(self, uuid: str) -> int: ...
    def save_baseline(self, uuid: str) -> int: ...
    def give_back(self, uuid: str, limit_mw: int) -> int: ...
    def baseline(self, uuid: str) -> tuple[int | None, bool]: ...


class ThreadedActuator:
    """The ``Actuator``: every call on a device goes through that device's thread, and has a deadline in seconds.

    ``gone`` says why, where what sets limits was not there when it was last asked.
    """

    def __init__(self, limits: SetsLimits, thread_of: Callable[[str], DeviceThread]) -> None:
        self._limits = limits
        self._thread_of = thread_of
        self.gone: str | None = None

    async def set_limit(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        """Set the requested limit and give what reads back, both in milliwatts; the newest target replaces others.

        Saves the baseline before the first write and refuses to write where it cannot. Raises DeviceError.
        """
        return await self._run(uuid, "set_limit", partial(self._limits.set_limit, uuid, limit_mw), deadline_s)

    async def claim(self, uuid: str, deadline_s: float) -> int:
        """Take a GPU over without a write, its limit being right already: saves the baseline, in milliwatts."""
        return await self._run(uuid, "claim", partial(self._limits.claim, uuid), deadline_s)

    async def save_baseline(self, uuid: str, deadline_s: float) -> int:
        """The baseline in milliwatts, saved now unless it was before. Raises DeviceError."""
        return await self._run(uuid, "save_baseline", partial(self._limits.save_baseline, uuid), deadline_s)

    async def give_back(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        """Set the limit the GPU is to be left with, and stop calling it ours. Raises DeviceError."""
        return await self._run(uuid, "set_limit", partial(self._limits.give_back, uuid, limit_mw), deadline_s)

    async def baseline(self, uuid: str, deadline_s: float) -> tuple[int | None, bool]:
        """The saved baseline in milliwatts or None, and whether the GPU is ours. Raises DeviceError (STATE)."""
        return await self._run(uuid, "load_baseline", partial(self._limits.baseline, uuid), deadline_s)

    def stalled(self, gpu: str) -> bool:
        """True while a call about this device is out past its deadline."""
        return self._thread_of(gpu).stalled

    async def probe(self, ask: Callable[[], object]) -> None:
        """Learn whether it is there, by a question that no device is needed for and that ends by itself."""
        try:
            await asyncio.to_thread(ask)
        except OSError as error:
            self.gone = str(error)
        else:
            self.gone = None

    async def _run(self, uuid: str, what: str, call: Callable[[], T], deadline_s: float) -> T:
        try:
            answer = await self._thread_of(uuid).run(what, call, deadline_s, replaces=what == "set_limit")
        except DeviceError as error:
            if error.kind is not Kind.TIMEOUT:  # which may be the device's
                self.gone = str(error) if error.kind is Kind.NO_ACTUATOR else None
            raise
        self.gone = None
        return answer


class RemoteLimits:
    """What the actuator's process does for whoever may open its socket. For many threads: each has a connection.

    One that the actuator has closed is made anew once for each question: all that is asked may be asked twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = threading.local()
        self._open: set[socket.socket] = set()

    def set_limit(self, uuid: str, limit_mw: int) -> int:
        """As ``Limits.set_limit``."""
        return int(self._ask(uuid, {"do": "set_limit", "gpu": uuid, "mw": limit_mw}))

    def claim(self, uuid: str) -> int:
        """As ``Limits.claim``."""
        return int(self._ask(uuid, {"do": "claim", "gpu": uuid}))

    def save_baseline(self, uuid: str) -> int:
        """As ``Limits.save_baseline``."""
        return int(self._ask(uuid, {"do": "save_baseline", "gpu": uuid}))

    def give_back(self, uuid: str, limit_mw: int) -> int:
        """As ``Limits.give_back``."""
        return int(self._ask(uuid, {"do": "give_back", "gpu": uuid, "mw": limit_mw}))

    def baseline(self, uuid: str) -> tuple[int | None, bool]:
        """As ``Limits.baseline``."""
        limit_mw, ours = self._ask(uuid, {"do": "baseline", "gpu": uuid})
        return (None if limit_mw is None else int(limit_mw)), bool(ours)

    def evidence_of(self, pid: int) -> dict[str, str]:
        """As ``evidence.evidence_of``. Raises OSError."""
        try:
            return dict(self._ask("actuator", {"do": "evidence", "pid": pid}, EVIDENCE_TIMEOUT_S))
        except DeviceError as error:
            raise OSError(str(error)) from None

    def close(self) -> None:
        """Hang up, whoever may be waiting for an answer."""
        for connection in list(self._open):
            connection.close()

    def _ask(self, device: str, question: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        raw = json.dumps(question).encode()
        try:
            answer = self._talk(raw, timeout_s) or self._talk(raw, timeout_s)
        except OSError as error:
            self._hang_up()
            mend = "systemctl status wattkeeper-actuator"
            raise DeviceError(Kind.NO_ACTUATOR, device, f"{self._path}: {error.strerror or error}", mend) from None
        if not answer:
            raise DeviceError(Kind.NO_ACTUATOR, device, f"{self._path}: hung up", "see the actuator's journal")
        words = json.loads(answer)
        if "is" in words:
            return words["is"]
        raise DeviceError(Kind(words["kind"]), words["device"], words["tried"], words["mend"])

    def _talk(self, raw: bytes, timeout_s: float | None) -> bytes:
        """Its answer; empty, and the connection closed, where it has ended since the last one."""
        if getattr(self._own, "connection", None) is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.settimeout(CONNECT_TIMEOUT_S)
            self._own.connection = connection
            self._open.add(connection)
            connection.connect(str(self._path))
        self._own.connection.settimeout(timeout_s)
        try:
            self._own.connection.send(raw)
            answer: bytes = self._own.connection.recv(LONGEST_ANSWER)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        if not answer:
            self._hang_up()
        return answer

    def _hang_up(self) -> None:
        connection, self._own.connection = getattr(self._own, "connection", None), None
        if connection is not None:
            self._open.discard(connection)
            connection.close()
