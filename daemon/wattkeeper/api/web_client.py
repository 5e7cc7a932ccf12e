"""One client of the metrics' listener, with a clock and a scale on what it does; and how many there may be."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from wattkeeper.api.web_file import InForce
from wattkeeper.config.web import plain_san


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may take: seconds, bytes and places."""

    header_s: float = 5.0
    """For a handshake, and from a request's first byte to its last."""
    request_s: float = 15.0
    """From a request's last byte to the last of its answer, as far as the kernel does not take that in."""
    idle_s: float = 180.0
    """Between two requests: longer than any scrape interval that is in use."""
    request_bytes: int = 16 * 1024
    """A scrape has about 300, and no body."""
    clients: int = 64


USUAL = Limits()


class Client(asyncio.Protocol):
    """aiohttp's protocol, with limits around it. ``under``: what was in force when it came.

    ``busy``: it has asked and is being answered. ``known``: what it asked last was not refused.
    """

    def __init__(self, inner: asyncio.Protocol, channel: socket.socket, under: InForce, limits: Limits) -> None:
        self._inner = inner
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._received = 0
        self._left: Callable[[], None] = _nothing
        self.busy = False
        self.known = False
        self.under = under
        self.address = _address(channel)
        self.task: asyncio.Task[None] | None = None

    def when_gone(self, call: Callable[[], None]) -> None:
        """``call`` is called when the connection is lost."""
        self._left = call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """After the handshake, where there is one."""
        self._transport = cast(asyncio.Transport, transport)
        self._cut_after(self._limits.header_s)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Weigh it, and pass it on."""
        if not self._received and not self.busy:
            self._cut_after(self._limits.header_s)
        self._received += len(data)
        if self._received > self._limits.request_bytes:
            self.cut()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The client has said all."""
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone, by its own will or ours."""
        self._cut_after(None)
        self._left()
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        """It does not read as fast as we write."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It has read."""
        self._inner.resume_writing()

    def begin(self) -> None:
        """A whole request is there, and is to be answered."""
        self.busy = True
        self._cut_after(self._limits.request_s)

    def end(self) -> None:
        """It is answered. What came after it counts anew."""
        self.busy = False
        self._received = 0
        if self._transport is not None and not self._transport.is_closing():
            self._cut_after(self._limits.idle_s)

    def cut(self) -> None:
        """End the connection now, whatever state it is in."""
        if self._transport is not None:
            self._transport.abort()
        elif self.task is not None:
            self.task.cancel()

    def stranger(self) -> str | None:
        """What is wrong with the client's certificate, of which ``client_allowed_sans`` asks more; None: nothing."""
        config = self.under.config.tls
        if config is None or not config.client_sans or self._transport is None:
            return None
        shown = (self._transport.get_extra_info("peercert") or {}).get("subjectAltName", ())
        names = {plain_san(str(value)) for kind, value in shown if kind in ("DNS", "email", "IP Address", "URI")}
        return None if names & config.client_sans else "the certificate has no name of client_allowed_sans"

    def _cut_after(self, seconds: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self.cut)


class Room:
    """The clients that are here. A newcomer who asks at once is served, however many sit and say nothing.

    Strangers make room before scrapers that are known, and those of the largest crowd before others.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._clients: dict[Client, None] = {}

    def enter(self, client: Client) -> bool:
        """Let it in, if need be in place of one that asks for nothing. False: all who are here are being served."""
        if len(self._clients) >= self._most:
            waiting = [other for other in self._clients if not other.busy]
            if not waiting:
                return False
            crowd = Counter(other.address for other in self._clients)
            last = max(waiting, key=lambda other: (not other.known, crowd[other.address]))  # of these, who came first
            self.leave(last)
            last.cut()
        self._clients[client] = None
        client.when_gone(lambda: self.leave(client))
        return True

    def leave(self, client: Client) -> None:
        """It is gone."""
        self._clients.pop(client, None)

    def cut_waiting(self) -> None:
        """Send away whoever is between two requests."""
        for client in [client for client in self._clients if not client.busy]:
            client.cut()

    def cut_all(self) -> None:
        """Send everybody away."""
        for client in list(self._clients):
            client.cut()


def _address(channel: socket.socket) -> str:
    """Who is at the other end: an address, or that it is somebody on this node."""
    try:
        name = channel.getpeername()
    except OSError:
        return "unknown"
    return str(name[0]) if isinstance(name, tuple) and name else "unix socket"


def _nothing() -> None:
    """What happens when a client is gone that was never let in."""
