"""The socket between the agent and root: one packet asks, one answers. Everything in a question is suspect.

``{"do": "set_limit", "gpu": "GPU-…", "mw": 250000}`` gets ``{"is": 250000}``, or the parts of a DeviceError.
"""

import json
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Collection
from typing import Any

from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.privileged.evidence import evidence_of
from wattkeeper.privileged.limits import Limits

LONGEST = 512
"""A question of more bytes than this is refused unread."""

MOST_CONNECTIONS = 64
"""The agent has one for each GPU and one for evidence; whoever comes beyond this is sent away."""

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
        """``uids``: who may ask. ``say``: where refusals are told, once for each kind of them."""
        self._limits = limits
        self._uids = uids
        self._say = say
        self._told: set[str] = set()
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._devices: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def serve(self, listener: socket.socket, alive: Callable[[], None]) -> None:
        """Accept for ever. ``alive`` is called between two connections, and whenever none came for the time-out."""
        while True:
            alive()
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            uid = _peer_uid(connection)
            if uid in self._uids and self._places.acquire(blocking=False):
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()
            else:
                connection.close()
                self._tell("too many connections" if uid in self._uids else f"uid {uid} may not ask")

    def _tell(self, why: str) -> None:
        with self._lock:
            new = why not in self._told and len(self._told) < MOST_CONNECTIONS
            self._told.add(why) if new else None
        if new:
            self._say(f"refused: {why} (told once)")

    def _converse(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(None)
            while question := connection.recv(LONGEST + 1):
                connection.send(json.dumps(self._answer(question)).encode())
        except OSError:
            pass  # whoever asked has gone
        finally:
            connection.close()
            self._places.release()

    def _answer(self, raw: bytes) -> dict[str, Any]:
        try:
            return {"is": self._do(_parse(raw))}
        except DeviceError as error:
            return {"kind": error.kind.value, "device": error.device, "tried": error.tried, "mend": error.mend}
        except OSError as error:  # a process that has ended
            return {"kind": Kind.AGAIN.value, "device": "actuator", "tried": str(error), "mend": ""}
        except ValueError as error:
            self._tell(str(error))
            return {"kind": Kind.INVALID.value, "device": "actuator", "tried": str(error), "mend": ""}

    def _do(self, question: dict[str, Any]) -> Any:
        if question["do"] == "evidence":
            return evidence_of(question["pid"])
        call = getattr(self._limits, question["do"])
        with self._device(question["gpu"]):
            return call(*(question[name] for name in ("gpu", "mw") if name in question))

    def _device(self, gpu: str) -> threading.Lock:
        """Calls on a device never overlap. Only devices that exist get a lock, or names could fill the memory."""
        if gpu not in self._devices:
            self._limits.require(gpu)
        with self._lock:
            return self._devices.setdefault(gpu, threading.Lock())


def _parse(raw: bytes) -> dict[str, Any]:
    """A question of exactly the words that its verb takes. Raises ValueError."""
    if len(raw) > LONGEST:
        raise ValueError(f"a question of more than {LONGEST} bytes")
    try:
        question = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("a question that is no JSON") from None
    verb = question.get("do") if isinstance(question, dict) else None
    if not isinstance(verb, str) or verb not in _WORDS:
        raise ValueError("a question without a verb that is known")
    if question.keys() != {"do"} | _WORDS[verb] or not all(_fits(word, question[word]) for word in _WORDS[verb]):
        raise ValueError(f"'{verb}' with other words than it takes")
    return dict(question)


def _fits(word: str, value: Any) -> bool:
    if word == "gpu":
        return isinstance(value, str) and _GPU.fullmatch(value) is not None
    return type(value) is int and 0 < value < 1 << 31  # no bool, no float


def _peer_uid(connection: socket.socket) -> int:
    """The kernel's word for who is at the other end (SO_PEERCRED, unix(7))."""
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


def say(text: str) -> None:
    """One line to the journal."""
    print(f"actuator: {text}", file=sys.stderr, flush=True)
