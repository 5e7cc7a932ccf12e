"""HTTP over a unix socket, and systemd's notification socket: the agent's two other ends."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def request(
    path: Path, url: str, body: bytes | None = None, *, method: str | None = None, timeout_s: float = 5
) -> tuple[int, bytes]:
    """Status and body of one request. Raises OSError where nobody answers."""
    connection = _UnixConnection(path, timeout_s)
    try:
        headers = {} if body is None else {"Content-Type": "application/octet-stream"}
        connection.request(method or ("GET" if body is None else "POST"), url, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def get_json(path: Path, url: str) -> Any:
    status, body = request(path, url)
    if status != 200:
        raise OSError(f"GET {url}: HTTP status {status}: {body[:500]!r}")
    return json.loads(body)


_MARK = "X_CLEARED_AT"
"""A field that no program sends."""


class NotifySocket:
    """What systemd is for a service of Type=notify: keeps every message with the time it came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[tuple[float, dict[str, str]]] = []
        self._news = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, name=f"notify {path}", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                return
            if not data:
                return
            fields = dict(line.partition("=")[::2] for line in data.decode(errors="replace").splitlines())
            with self._news:
                self.messages.append((time.monotonic(), fields))
                self._news.notify_all()

    def seen(self, key: str, value: str | None = None, since: int = 0) -> bool:
        """Whether a message after the first `since` ones had that key (and value)."""
        with self._news:
            return any(key in fields and value in (None, fields[key]) for _, fields in self.messages[since:])

    def clear(self) -> None:
        """Forgets what came until now, also what nobody has read yet: a program that was killed may have sent it."""
        mark = f"{time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(f"{_MARK}={mark}".encode(), str(self.path))
        with self._news:
            self._news.wait_for(lambda: any(fields.get(_MARK) == mark for _, fields in self.messages), 30)
            self.messages.clear()

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(self.path))
        self._thread.join(5)
        self._socket.close()
        self.path.unlink(missing_ok=True)
