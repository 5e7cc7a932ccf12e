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

MOST_CONNECTIONS = 24
"""Of each user. The agent has one for each GPU and one for evidence; whoever comes beyond this is sent away."""

MOST_READ_AT_ONCE = 3
"""Processes whose environment is being read: a job can see to it that reading its own never ends."""

MOST_TOLD, TOLD_EVERY_S = 32, 60.0
"""So many different refusals are told, each once, in so many seconds."""

REFUSAL_S = 0.01
"""Who is refused waits so long for it, and keeps the others from nothing meanwhile."""

DEVICE_WAIT_S = 5.0
"""How long a question waits for another one about the same device: beyond this the driver hangs."""

_GPU = re.compile(r"GPU-[0-9A-Za-z-]{1,60}")
_WORDS = {"set_limit": {"gpu", "mw"}, "give_back": {"gpu", "mw"}, "evidence": {"pid"}}
_WORDS |= {verb: {"gpu"} for verb in ("claim", "save_baseline", "baseline")}
"""What can be asked for, and the words that each takes."""


class _OneEach:
    """Things of which each is dealt with by one thread at a time; ``most`` at once, and others wait ``wait_s``.

    One that is never done with holds up those who want it, and no others. Nothing is remembered of what is not held.
    """

    def __init__(self, most: int, wait_s: float) -> None:
        self._most, self._wait_s = most, wait_s
        self._held: set[str] = set()
        self._change = threading.Condition()

    @contextmanager
    def hold(self, what: str) -> Iterator[None]:
        """Raises DeviceError (TIMEOUT) where its turn does not come."""
        with self._change:
            free = self._change.wait_for(lambda: what not in self._held and len(self._held) < self._most, self._wait_s)
            if not free:
                raise DeviceError(Kind.TIMEOUT, what, "what was asked before has not come back")
            self._held.add(what)
        try:
            yield
        finally:
            with self._change:
                self._held.remove(what)
                self._change.notify_all()


class Server:
    """Answers each connection in a thread of its own. A device that hangs holds up those who ask about it alone."""

    def __init__(self, limits: Limits, uids: Collection[int], say: Callable[[str], None]) -> None:
        """``uids``: who may ask. ``say``: where refusals are told."""
        self._limits = limits
        self._say = say
        self._told: set[str] = set()
        self._told_since = 0.0
        self._lock = threading.Lock()
        self._places = {uid: threading.BoundedSemaphore(MOST_CONNECTIONS) for uid in uids}
        self._devices = _OneEach(MOST_CONNECTIONS * len(uids), DEVICE_WAIT_S)
        self._processes = _OneEach(MOST_READ_AT_ONCE, 0)

    def serve(self, listener: socket.socket, alive: Callable[[], None]) -> None:
        """Accept for ever. ``alive`` is called between two connections, and whenever none came for the time-out."""
        while True:
            alive()
            try:
                connection, _ = listener.accept()
                self._admit(connection, _peer_uid(connection))
            except TimeoutError:
                continue
            except OSError as error:  # the node has no file or memory left, which is no reason to end
                self._tell(f"a connection: {error.strerror}")
                time.sleep(0.1)

    def _admit(self, connection: socket.socket, uid: int) -> None:
        place = self._places.get(uid)
        if place is None or not place.acquire(blocking=False):
            connection.close()
            return self._tell(f"uid {uid} " + ("may not ask" if place is None else "has too many connections"))
        try:
            threading.Thread(target=self._converse, args=(connection, place), daemon=True).start()
        except RuntimeError as error:  # the node has no thread left
            connection.close()
            place.release()
            self._tell(f"a connection: {error}")

    def _tell(self, why: str) -> None:
        with self._lock:
            if time.monotonic() - self._told_since >= TOLD_EVERY_S:
                self._told, self._told_since = set(), time.monotonic()
            new = why not in self._told and len(self._told) < MOST_TOLD
            self._told.add(why) if new else None
        if new:
            self._say(f"refused: {why} (told once a minute)")

    def _converse(self, connection: socket.socket, place: threading.BoundedSemaphore) -> None:
        try:
            with connection, suppress(OSError):  # whoever asked may have gone
                while question := connection.recv(LONGEST + 1):
                    answer = json.dumps(self._answer(question)).encode()
                    failpoint("server.answering")
                    connection.send(answer)
        finally:
            place.release()

    def _answer(self, raw: bytes) -> dict[str, Any]:
        try:
            return {"is": self._do(_parse(raw))}
        except DeviceError as error:
            wrong = error
        except OSError as error:  # a process that has ended
            wrong = DeviceError(Kind.AGAIN, "actuator", str(error))
        if wrong.kind in (Kind.INVALID, Kind.LOST):
            self._tell(wrong.tried if wrong.device == "actuator" else f"{wrong.device}: {wrong.kind}")
            time.sleep(REFUSAL_S)
        return {"kind": wrong.kind, "device": wrong.device, "tried": wrong.tried, "mend": wrong.mend}

    def _do(self, question: dict[str, Any]) -> Any:
        if question["do"] == "evidence":
            with self._processes.hold(f"process {question['pid']}"):
                return evidence_of(question["pid"])
        call = getattr(self._limits, question["do"])
        with self._devices.hold(question["gpu"]):  # calls on a device never overlap
            return call(*(question[name] for name in ("gpu", "mw") if name in question))


def _parse(raw: bytes) -> dict[str, Any]:
    """A question of exactly the words that its verb takes. Raises DeviceError (INVALID)."""
    try:
        question = json.loads(raw) if len(raw) <= LONGEST else None
    except (ValueError, RecursionError):
        question = None
    if not isinstance(question, dict) or question.get("do") not in list(_WORDS):
        raise DeviceError(Kind.INVALID, "actuator", "a question that is none")
    words = _WORDS[question["do"]]
    if question.keys() != {"do"} | words or not all(_fits(word, question[word]) for word in words):
        raise DeviceError(Kind.INVALID, "actuator", f"'{question['do']}' with other words than it takes")
    return question


def _fits(word: str, value: Any) -> bool:
    if word == "gpu":
        return isinstance(value, str) and _GPU.fullmatch(value) is not None
    return type(value) is int and 0 < value < 1 << 31  # no bool, no float


def _peer_uid(connection: socket.socket) -> int:
    """The kernel's word for who is at the other end (SO_PEERCRED, unix(7))."""
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def say(text: str) -> None:
    """One line to the journal, if there is one."""
    with suppress(OSError):
        print(f"actuator: {text}", file=sys.stderr, flush=True)
