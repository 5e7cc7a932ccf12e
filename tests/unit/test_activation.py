"""Sockets that systemd hands over: taken once, checked, and passed on to nobody."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wattkeeper.errors import WattkeeperError
from wattkeeper.system.activation import given_sockets

FIRST = 230
"""Stands for 3, which pytest's own files may have."""


@pytest.fixture
def place() -> Iterator[list[int]]:
    """Descriptors from FIRST on; what a test puts there is closed after it."""
    numbers: list[int] = []
    yield numbers
    for number in numbers:
        try:
            os.close(number)
        except OSError:
            continue  # whoever was given it has closed it


def put(place: list[int], found: socket.socket) -> None:
    place.append(os.dup2(found.fileno(), FIRST + len(place), inheritable=True))
    found.close()


def listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(str(path))
    made.listen()
    return made


def told(names: str, count: int | str, pid: int | None = None) -> dict[str, str]:
    words = {"LISTEN_PID": str(os.getpid() if pid is None else pid), "LISTEN_FDS": str(count), "OTHER": "stays"}
    return {**words, "LISTEN_FDNAMES": names} if names else words


def test_sockets_come_by_name_and_answer(tmp_path: Path, place: list[int]) -> None:
    for name in ("events", "read"):
        put(place, listening(tmp_path / name))
    environment = told("events:read", 2)
    given = given_sockets(environment, FIRST)
    assert {name: found.getsockname() for name, found in given.items()} == {
        name: str(tmp_path / name) for name in ("events", "read")
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(tmp_path / "read"))
        answered, _ = given["read"].accept()
        answered.close()
    assert environment == {"OTHER": "stays"}
    assert not any(found.get_inheritable() for found in given.values())
    assert given_sockets(environment, FIRST) == {}
    for found in given.values():
        found.close()


@pytest.mark.parametrize("environment", [{}, told("events", 1, pid=1), told("", "")])
def test_none_were_given_to_this_process(environment: dict[str, str]) -> None:
    assert given_sockets(environment, FIRST) == {}
    assert not any(key.startswith("LISTEN") for key in environment)


@pytest.mark.parametrize(
    ("names", "count", "says"),
    [
        ("events", "two", "no number"),
        ("events", "-1", "no number"),
        ("events", 2, "FileDescriptorName="),
        ("events:events", 2, "FileDescriptorName="),
        ("", 1, "FileDescriptorName="),
        ("events", 1, "no socket"),
    ],
)
def test_what_cannot_be_believed_is_an_error(names: str, count: int | str, says: str) -> None:
    with pytest.raises(WattkeeperError, match=says):
        given_sockets(told(names, count), FIRST)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM),  # does not listen
        (socket.AF_UNIX, socket.SOCK_DGRAM),
        (socket.AF_INET, socket.SOCK_STREAM),
    ],
)
def test_only_unix_sockets_that_listen(place: list[int], family: int, kind: int) -> None:
    put(place, socket.socket(family, kind))
    with pytest.raises(WattkeeperError, match="'events' is no unix socket that listens"):
        given_sockets(told("events", 1), FIRST)
