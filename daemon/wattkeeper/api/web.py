"""The metrics' own listener, on TCP or a unix socket: the one door of the agent that strangers may stand before.

Hooks are answered on the same loop, so whoever comes here gets a bounded part of it. Connections are accepted at a
pace, and of those that have not asked for anything yet the oldest makes room for a new one. Requests take turns, and
after each the loop belongs to others for as long as it took. What is too slow, too big or too much is cut off.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from aiohttp import hdrs, web

from wattkeeper.api.bind import bind_tcp, bind_unix, peer_uid
from wattkeeper.api.request_log import RequestLog
from wattkeeper.api.turns import Turns
from wattkeeper.api.web_auth import Passwords, credentials_in
from wattkeeper.api.web_client import USUAL, Client, Limits, Room
from wattkeeper.api.web_file import PLAIN, InForce, WebFile
from wattkeeper.config.settings import Listen, UnixListen
from wattkeeper.config.web import RateLimit
from wattkeeper.system.sparing import Sparing
from wattkeeper.text import printable

log = logging.getLogger("wattkeeper.web")

ACCEPT_PACE_S = 0.005
"""Between two connections: a TLS handshake costs the loop 1 to 3 ms."""

SEND_BYTES = 256 * 1024
"""What the kernel keeps for a client that does not read; by itself it would go up to megabytes."""

Page = Callable[[str, bool], tuple[bytes, str]]
"""The page and its content type, for a client of that name, who has shown who he is or has not."""


class MetricsSite:
    """Serves ``/metrics`` until closed."""

    def __init__(self, page: Page, web_file: WebFile | None, limits: Limits = USUAL) -> None:
        """``web_file``: TLS and passwords; None: everybody is served, in plain text."""
        self._page = page
        self._file = web_file
        for note in web_file.current().config.notes if web_file else ():
            log.warning("%s", note)
        self._limits = limits
        self._passwords = Passwords()
        self._sparing = Sparing(log, lambda: asyncio.get_running_loop().time())
        self._turns = Turns()
        self._rate: _Bucket | None = None
        self._room = Room(limits.clients)
        self._listeners: list[socket.socket] = []
        self._unix: Path | None = None
        self._accepting: list[asyncio.Task[None]] = []
        self._before = PLAIN
        application = web.Application(client_max_size=4096, middlewares=[self._admit])
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/", _index)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=RequestLog(log, self._sparing),
            shutdown_timeout=1.0,
            keepalive_timeout=3600.0,
            handler_cancellation=True,
        )

    @property
    def alarm(self) -> str | None:
        """Why the newest ``web_config`` is not in force, if it is not."""
        return self._file.alarm if self._file else None

    async def open(self, listen: Listen | UnixListen) -> None:
        """Begin to serve. Raises WattkeeperError where the address is taken or cannot be."""
        if isinstance(listen, UnixListen):
            self._listeners, self._unix = [bind_unix(listen.path)], listen.path
        else:
            self._listeners = await bind_tcp(listen)
        await self._runner.setup()
        self._accepting = [asyncio.create_task(self._accept(listener)) for listener in self._listeners]

    async def close(self) -> None:
        """Stop listening; requests under way are finished first, for a second at most."""
        for task in self._accepting:
            task.cancel()
        for listener in self._listeners:
            listener.close()
        if self._unix is not None:
            self._unix.unlink(missing_ok=True)
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await self._runner.cleanup()
        self._room.cut_all()
        self._passwords.close()

    def _in_force(self) -> InForce:
        """What the file says now. Who was let in by other certificates or rules has to come again."""
        now = PLAIN if self._file is None else self._file.current()
        if now is not self._before:
            self._before = now
            self._room.cut_waiting()
            rate = now.config.rate_limit
            self._rate = None if rate is None else _Bucket(rate)
        return now

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        server = self._runner.server
        while server is not None:
            try:
                channel, _ = await loop.sock_accept(listener)
            except OSError as error:  # such as EMFILE: it passes
                log.error("metrics.listen: cannot accept: %s", error)
                await asyncio.sleep(1.0)
                continue
            channel.setblocking(False)
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
            client = Client(server(), channel, self._in_force(), self._limits)
            if self._room.enter(client):
                client.task = asyncio.create_task(self._greet(client, channel))
            else:
                channel.close()
            await asyncio.sleep(ACCEPT_PACE_S)

    async def _greet(self, client: Client, channel: socket.socket) -> None:
        """The handshake, if there is one; after it the client's own protocol takes over."""
        context = client.under.context
        limits = (
            {} if context is None else {"ssl_handshake_timeout": self._limits.header_s, "ssl_shutdown_timeout": 1.0}
        )
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: client, channel, ssl=context, **limits)
        except (OSError, TimeoutError) as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else None
            self._refused(client, f"TLS handshake failed: {reason or error or type(error).__name__}")
            self._room.leave(client)
        except BaseException:
            self._room.leave(client)
            raise

    @web.middleware
    async def _admit(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        client = cast("Client", _transport(request).get_protocol())
        client.begin()
        try:
            now = self._in_force()
            response = await self._answer(request, handler, now, client)
            client.known = response.status == 200
            response.headers.update(now.config.headers)
            if client.under is not now:
                response.force_close()
            await response.prepare(request)
            await response.write_eof()
        finally:
            client.end()
        return response

    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        now: InForce,
        client: Client,
    ) -> web.StreamResponse:
        answer = self._barred(now, client)
        if answer is None and now.config.users:
            answer = await self._ask_password(request, now, client)
        async with self._turns:
            _transport(request)  # whoever left meanwhile costs nothing more
            if answer is not None:
                return answer
            try:
                return await handler(request)
            except web.HTTPException as error:  # no such page, or not with that method
                kept = {name: error.headers[name] for name in (hdrs.ALLOW,) if name in error.headers}
                return web.Response(status=error.status, text=f"{error.reason}\n", headers=kept)

    def _barred(self, now: InForce, client: Client) -> web.Response | None:
        """Why this client is not served, whatever password it has; None: it may be."""
        if client.under.context is None and now.context is not None:
            return _text(403, "this port speaks TLS now: connect again\n", close=True)
        if self._rate is not None and not self._rate.take():
            return _text(429, "rate_limit\n")
        refused = client.stranger()
        if refused is None:
            return None
        self._refused(client, refused)
        return _text(403, f"{refused}\n", close=True)

    async def _ask_password(self, request: web.Request, now: InForce, client: Client) -> web.Response | None:
        """None: go on. Users and passwords are never logged: people type one where the other belongs."""
        shown = credentials_in(request.headers.get(hdrs.AUTHORIZATION, ""))
        right: bool | None = False
        if shown is not None:
            right = await self._passwords.right(dict(now.config.users), *shown, client.address)
        if right:
            return None
        if right is None:
            self._refused(client, "too many passwords wait to be checked")
            return _text(503, "too many passwords wait to be checked\n", {hdrs.RETRY_AFTER: "1"})
        self._refused(client, "no password" if shown is None else "wrong user or password")
        return _text(401, "Unauthorized\n", {hdrs.WWW_AUTHENTICATE: 'Basic realm="wattkeeper", charset="UTF-8"'})

    def _refused(self, client: Client, why: str) -> None:
        """Somebody was not served. Which address began it is said; who else did the same is only counted."""
        self._sparing.warn(why, f"refused a scrape from {client.address}: {printable(why)}")

    async def _metrics(self, request: web.Request) -> web.Response:
        name = request.remote or f"uid {peer_uid(request)}"
        agent = printable(request.headers.get(hdrs.USER_AGENT, ""), 200)
        page, content_type = self._page(f"{name} {agent}", self._before.config.authenticates)
        return web.Response(body=page, headers={hdrs.CONTENT_TYPE: content_type})


class _Bucket:
    """``rate_limit``: a bucket of tokens that fills by itself."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._at = asyncio.get_running_loop().time()

    def take(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._limit.burst, self._tokens + (now - self._at) / self._limit.interval_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _transport(request: web.Request) -> asyncio.Transport:
    """The request's own. Raises ConnectionResetError where the client is gone."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    return transport


def _text(status: int, text: str, headers: dict[str, str] | None = None, *, close: bool = False) -> web.Response:
    response = web.Response(status=status, text=text, headers=headers)
    if close:
        response.force_close()
    return response


async def _index(_: web.Request) -> web.Response:
    return web.Response(text='<a href="/metrics">Wattkeeper metrics</a>\n', content_type="text/html")
