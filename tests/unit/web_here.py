"""The metrics' listener in this process, on a loop of its own, with clients as the network has them."""

import asyncio
import http.client
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.processes import free_ports

from wattkeeper.api.web import MetricsSite
from wattkeeper.api.web_client import USUAL, Limits
from wattkeeper.api.web_file import WebFile
from wattkeeper.config.settings import Listen, UnixListen


@dataclass
class Site:
    """`asked`: for each page, the client's name and whether it had shown who it is."""

    port: int
    page: bytes = b"a 1\n"
    asked: list[tuple[str, bool]] = field(default_factory=list)
    metrics: MetricsSite | None = None

    def render(self, client: str, authenticated: bool) -> tuple[bytes, str]:
        self.asked.append((client, authenticated))
        return self.page, "text/plain; version=0.0.4; charset=utf-8"

    @property
    def checks(self) -> int:
        """How often a password was checked."""
        assert self.metrics is not None
        return self.metrics._passwords.checks

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5)

    def open(self, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        if tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=tls)

    def get(
        self,
        path: str = "/metrics",
        *,
        tls: ssl.SSLContext | None = None,
        login: str | None = None,
        headers: Mapping[str, str] = {},
        method: str = "GET",
    ) -> http.client.HTTPResponse:
        """The answer, read to its end; `login`: user:password."""
        basic = {} if login is None else {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}
        connection = self.open(tls)
        try:
            connection.request(method, path, headers={**basic, **headers})
            answer = connection.getresponse()
            answer.body = answer.read()  # type: ignore[attr-defined]
            return answer
        finally:
            connection.close()

    def status(self, **more: str) -> int:
        return self.get(**more).status  # type: ignore[arg-type]


@contextmanager
def serving(web_config: Path | None = None, limits: Limits = USUAL, listen: UnixListen | None = None) -> Iterator[Site]:
    """Serves until the end of the block. Raises what the listener raises when it cannot begin."""
    (port,) = free_ports(1)
    site = Site(port)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)

    async def begin() -> MetricsSite:
        metrics = MetricsSite(site.render, WebFile(web_config) if web_config else None, limits)
        await metrics.open(listen or Listen("127.0.0.1", port))
        return metrics

    thread.start()
    try:
        site.metrics = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
        yield site
        asyncio.run_coroutine_threadsafe(site.metrics.close(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
