"""A stand-in for the agent's sockets: real HTTP on a real unix socket, behaviour set by the test."""

import os
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Self


class _Handler(BaseHTTPRequestHandler):
    server: "Listener"
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, self.headers.get("Content-Type", ""), body))
        if self.server.hang.wait(self.server.delay_s):
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST = _answer  # noqa: N815 - http.server's names

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


class Listener(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers every request with `status` and `body`, after `delay_s` seconds."""

    daemon_threads = True

    def __init__(self, path: Path, status: int = 200, body: bytes = b"", delay_s: float = 0) -> None:
        super().__init__(str(path), _Handler)
        self.path = path
        self.status, self.body, self.delay_s = status, body, delay_s
        self.seen: list[tuple[str, str, str, bytes]] = []
        self.hang = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """A hook that gave up has closed its end: no news."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang.set()
        self.shutdown()
        self.server_close()
        self.path.unlink(missing_ok=True)
        self._thread.join(5)


def uptime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def running_as_root() -> bool:
    return os.geteuid() == 0
