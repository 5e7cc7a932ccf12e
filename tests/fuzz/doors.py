"""The agent's two sockets and its metrics' listener in this process, for raw bytes."""

import asyncio
import os
import socket
import tempfile
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.one_node import OneNode, gpu
from wattkeeper.agent.control import Control
from wattkeeper.api.server import Doors, Server
from wattkeeper.api.web import MetricsSite
from wattkeeper.config.settings import UnixListen
from wattkeeper.exporters.prometheus import Exporter

ANSWER_S = 10.0
MOST_THROWN = 2_000
"""Then a new node takes its place: what events leave behind is not what is looked for here."""


class HttpDoors:
    """The first byte of what is thrown says at which door: events.sock, read.sock, the metrics."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thrown = 0

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="wk-fuzz-")
        self._node = OneNode(gpu(0), gpu(1))
        self._thread.start()
        self._do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._folder.cleanup()

    def throw(self, raw: bytes) -> None:
        """Fails where the answer is one of ours that went wrong (5xx), or where none comes."""
        if self._thrown >= MOST_THROWN:
            self._do(self._close())
            self._node = OneNode(gpu(0), gpu(1))
            self._do(self._open())
        self._thrown += 1
        name = ("events.sock", "read.sock", "metrics.sock")[raw[0] % 3 if raw else 0]
        answer = self._exchange(Path(self._folder.name) / name, raw[1:])
        for line in answer.split(b"\r\n"):
            assert not line.startswith((b"HTTP/1.1 5", b"HTTP/1.0 5")), answer[:500]

    def _exchange(self, path: Path, raw: bytes) -> bytes:
        answer = b""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(ANSWER_S)
            client.connect(str(path))
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(raw)
                client.shutdown(socket.SHUT_WR)
                while piece := client.recv(65536):
                    answer += piece
        return answer

    async def _open(self) -> None:
        node, folder = self._node, Path(self._folder.name)
        self._thrown = 0
        exporter = Exporter(node.snapshot, "id", node.clock.mono)
        self._metrics = MetricsSite(lambda _client, _shown: exporter.render("prometheus"), None)
        self._server = Server(
            Doors(
                snapshot=node.snapshot,
                metrics=lambda _: exporter.render("prometheus"),
                event=node._events.handle,
                control=Control(node.parts),
                changed=lambda: None,
                event_users=lambda: frozenset({os.geteuid()}),
                strict=lambda: True,
            )
        )
        await self._server.open_sockets(folder, None)
        await self._metrics.open(UnixListen(folder / "metrics.sock"))

    async def _close(self) -> None:
        await self._server.close()
        await self._metrics.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
