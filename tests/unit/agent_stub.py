"""A small real HTTP server on the agent's two unix sockets, with answers that a test sets."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class AgentStub:
    """``answers``: path to (status, data or text). ``posted``: what came, in order."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.answers: dict[str, tuple[int, Any]] = {}
        self.posted: list[tuple[str, bytes]] = []

    def reply(self, path: str) -> tuple[int, bytes]:
        status, data = self.answers.get(path, (404, {"error": f"no such thing: {path}"}))
        return status, data.encode() if isinstance(data, str) else json.dumps(data).encode()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def agent_stub(run_dir: Path) -> Iterator[AgentStub]:
    """Serves until the end of the block."""
    stub = AgentStub(run_dir)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            stub.posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self._reply()

        def _reply(self) -> None:
            status, body = stub.reply(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            return

    servers = [_Server(str(run_dir / name), Handler) for name in ("read.sock", "events.sock")]
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield stub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
