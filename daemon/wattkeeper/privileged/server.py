"""The socket between the agent and root: one packet asks, one answers. Everything in a question is suspect.

``{"do": "set_limit", "gpu": "GPU-…", "mw": 250000}`` gets ``{"is": 250000}``, or the parts of a DeviceError.
"""

import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.privileged.evidence import evidence_of
from wattkeeper.privileged.limits import Limits
from wattkeeper.system.failpoint import failpoint

LONGEST = 512
"""A question of more bytes than this is refused unread."""

MOST_CONNECTIONS = 64
"""Of each user. The agent has one for each GPU and one for evidence; whoever comes beyond this is sent away."""

MOST_READ_AT_ONCE = 8
"""Processes whose environment is being read: a job can see to it that reading its own never ends."""

MOST_TOLD, TOLD_EVERY_S = 32, 60.0
"""So many different refusals are told, each once, in so many seconds."""

DEVICE_WAIT_S = 5.0
"""How long a question waits for another one about the same device. Beyond this the driver hangs."""

PAUSE_S = 0.1
ALIVE_EVERY_S = 1.0

_GPU = re.compile(r"GPU-[0-9A-Za-z-]{1,60}")
_WORDS = {
    "set_limit": {"gpu", "mw"},
    "give_back": {"gpu", "mw"},
    "claim": {"gpu"},
    "save_baseline": {"gpu"},
    "baseline": {"gpu"},
    "evidence": {"pid"},
}
"""What can be asked for, and the words that each takes."""


class Server:
    """Answers each connection in a thread of its own. A device that hangs holds up those who ask about it alone."""

    def __init__(self, limits: Limits, uids: Collection[int], say: Callable[[str], None]) -> None:
        """``uids``: who may ask. ``say``: where refusals are told."""
        self._limits = limits
        self._say = say
        self._told: set[str] = set()
        self._told_since = 0.0
        self._places = {uid: threading.BoundedSemaphore(MOST_CONNECTIONS) for uid in uids}
        self._devices: dict[str, threading.Lock] = {}
        self._being_read: set[int] = set()
        self._lock = threading.Lock()

    def serve(self, listener: socket.socket, alive: Callable[[], None]) -> None:
        """Accept for ever. ``alive`` is called when it begins, and then now and again whether connections come or not.

        The listener's time-out says how long it may take where none come.
        """
        last = float("-inf")
        while True:
            if time.monotonic() - last >= ALIVE_EVERY_S:
                last = time.monotonic()
                alive()
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError as error:  # the node has no file or memory left, which is no reason to end
                self._tell(f"a connection, for lack of means: {error.strerror}")
                time.sleep(PAUSE_S)
            else:
                self._admit(connection, _peer_uid(connection))

    def _admit(self, connection: socket.socket, uid: int) -> None:
        place = self._places.get(uid)
        if place is None:
            why = f"uid {uid}, who may not ask"
        elif not place.acquire(blocking=False):
            why = f"more than {MOST_CONNECTIONS} connections of uid {uid}"
        else:
            try:
                threading.Thread(target=self._converse, args=(connection, place), daemon=True).start()
            except RuntimeError:  # the node has no thread left
                place.release()
                why = "a connection, for lack of threads"
            else:
                return
        connection.close()
        self._tell(why)

    def _tell(self, why: str) -> None:
        with self._lock:
            if time.monotonic() - self._told_since >= TOLD_EVERY_S:
                self._told.clear()
                self._told_since = time.monotonic()
            new = why not in self._told and len(self._told) < MOST_TOLD
            self._told.add(why) if new else None
        if new:
            self._say(f"refused: {why} (told once a minute)")

    def _converse(self, connection: socket.socket, place: threading.BoundedSemaphore) -> None:
        try:
            while question := connection.recv(LONGEST + 1):
                answer = json.dumps(self._answer(question)).encode()
                failpoint("server.answering")
                connection.send(answer)
        except OSError:
            pass  # whoever asked has gone
        finally:
            connection.close()
            place.release()

    def _answer(self, raw: bytes) -> dict[str, Any]:
        try:
            return {"is": self._do(_parse(raw))}
        except DeviceError as error:
            if error.kind in (Kind.INVALID, Kind.LOST):
                self._tell(f"a question about {error.device} ({error.kind})")
            return {"kind": error.kind.value, "device": error.device, "tried": error.tried, "mend": error.mend}
        except OSError as error:  # a process that has ended
            return {"kind": Kind.AGAIN.value, "device": "actuator", "tried": str(error), "mend": ""}
        except ValueError as error:
            self._tell(str(error))
            return {"kind": Kind.INVALID.value, "device": "actuator", "tried": str(error), "mend": ""}

    def _do(self, question: dict[str, Any]) -> Any:
        if question["do"] == "evidence":
            with self._reading(question["pid"]):
                return evidence_of(question["pid"])
        call = getattr(self._limits, question["do"])
        with self._device(question["gpu"]):
            return call(*(question[name] for name in ("gpu", "mw") if name in question))

    @contextmanager
    def _reading(self, pid: int) -> Iterator[None]:
        """Each process once at a time, and few at all: one that never ends holds up nobody, and costs one thread."""
        with self._lock:
            if pid in self._being_read or len(self._being_read) >= MOST_READ_AT_ONCE:
                raise DeviceError(Kind.AGAIN, "actuator", f"process {pid}, or too many others, are being read")
            self._being_read.add(pid)
        try:
            yield
        finally:
            with self._lock:
                self._being_read.discard(pid)

    @contextmanager
    def _device(self, gpu: str) -> Iterator[None]:
        """Calls on a device never overlap. Only devices that exist get a lock, or names could fill the memory."""
        if gpu not in self._devices:
            self._limits.require(gpu)
        with self._lock:
            device = self._devices.setdefault(gpu, threading.Lock())
        if not device.acquire(timeout=DEVICE_WAIT_S):
            raise DeviceError(Kind.TIMEOUT, gpu, "an earlier call has not come back", "see dmesg for its XID")
        try:
            yield
        finally:
            device.release()


def _parse(raw: bytes) -> dict[str, Any]:
    """A question of exactly the words that its verb takes. Raises ValueError."""
    if len(raw) > LONGEST:
        raise ValueError(f"a question of more than {LONGEST} bytes")
    try:
        question = json.loads(raw, object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        raise ValueError("a question that is no JSON") from None
    verb = question.get("do") if isinstance(question, dict) else None
    if not isinstance(verb, str) or verb not in _WORDS:
        raise ValueError("a question without a verb that is known")
    if question.keys() != {"do"} | _WORDS[verb] or not all(_fits(word, question[word]) for word in _WORDS[verb]):
        raise ValueError(f"'{verb}' with other words than it takes")
    return dict(question)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(words := dict(pairs)) != len(pairs):
        raise ValueError("a word twice")
    return words


def _fits(word: str, value: Any) -> bool:
    if word == "gpu":
        return isinstance(value, str) and _GPU.fullmatch(value) is not None
    return type(value) is int and 0 < value < 1 << 31  # no bool, no float


def _peer_uid(connection: socket.socket) -> int:
    """The kernel's word for who is at the other end (SO_PEERCRED, unix(7))."""
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


def say(text: str) -> None:
    """One line to the journal, if there is one."""
    with suppress(OSError):
        print(f"actuator: {text}", file=sys.stderr, flush=True)
