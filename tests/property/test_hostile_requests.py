"""Requests on the sockets that no hook and no command of ours would send: answers and journal stay fit to read."""

import asyncio
import http.client
import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.one_node import OneNode, gpu
from tests.property.hostile import PIECES, harmless, harmless_json

from wattkeeper.agent.control import Control
from wattkeeper.api.server import Doors, Server
from wattkeeper.slurm.hook_event import EventKind

LONG = "x" * 4_000
VERBS = [quote(text, safe="") for text in (*(p.encode(errors="replace").decode() for p in PIECES), LONG)]


class Asker(http.client.HTTPConnection):
    """One request over a unix socket at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        self.request(method, path, body)
        answer = self.getresponse()
        text = answer.read().decode()
        self.close()
        return answer.status, text


@contextmanager
def heard() -> Iterator[list[str]]:
    lines: list[str] = []
    logger = logging.getLogger("wattkeeper")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def ask_all(users: frozenset[int], requests: list[tuple[str, str, bytes | None]]) -> list[tuple[int, str]]:
    """What a real server on ``events.sock`` answers, if these users may send it events."""
    node = OneNode(gpu(0))

    async def serve(folder: Path) -> list[tuple[int, str]]:
        server = Server(
            Doors(
                snapshot=node.snapshot,
                metrics=lambda _: (b"", "text/plain"),
                event=node._events.handle,
                control=Control(node.parts),
                changed=lambda: None,
                event_users=lambda: users,
                strict=lambda: True,
            )
        )
        await server.open_sockets(folder, None)
        asker = Asker(folder / "events.sock")
        try:
            return [await asyncio.to_thread(asker.ask, *request) for request in requests]
        finally:
            await server.close()

    with tempfile.TemporaryDirectory(prefix="wk") as folder:
        return asyncio.run(serve(Path(folder)))


@pytest.fixture
def us() -> frozenset[int]:
    return frozenset({os.geteuid()})


def test_answers_are_fit_to_read(us: frozenset[int]) -> None:
    words = [json.dumps({"gpu": piece * 300, "reason": piece * 300}).encode() for piece in PIECES]
    requests: list[tuple[str, str, bytes | None]] = [
        *(("POST", f"/v1/control/{verb}", b"{}") for verb in VERBS),
        *(("POST", f"/v1/events/{verb}", b"") for verb in VERBS),
        *(("GET", f"/v1/jobs/{verb}", None) for verb in VERBS),
        *(("POST", "/v1/control/hold", body) for body in words),
        *(("POST", "/v1/control/hold", json.dumps({"reason": piece * 300}).encode()) for piece in PIECES),
        *(("POST", f"/v1/events/{kind}", body) for kind in EventKind for body in (b"", b"\xff\0\x1b[2J=", *words)),
    ]
    with heard() as lines:
        answers = ask_all(us, requests)
    for status, text in answers:
        assert status < 500, text
        if text.startswith("{"):
            harmless_json(json.loads(text))
        else:
            harmless(text)
    for line in lines:
        harmless(line)


def test_refusals_are_said_once_and_in_print() -> None:
    requests: list[tuple[str, str, bytes | None]] = [("POST", f"/v1/control/{verb}", b"") for verb in VERBS * 3]
    requests += [("GET", f"/{verb}", None) for verb in VERBS * 3]
    with heard() as lines:
        answers = ask_all(frozenset(), requests)
    assert {status for status, _ in answers} == {403}
    assert len(lines) == 2, "one of each kind of request"
    for line in lines:
        assert line.startswith("refused ")
        harmless(line, 200)
