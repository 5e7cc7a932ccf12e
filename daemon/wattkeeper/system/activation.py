"""Listening sockets that systemd hands over, and holds: sd_listen_fds(3). Callers queue in them while we are away."""

import os
import socket
from collections.abc import MutableMapping

from wattkeeper.errors import WattkeeperError

FIRST = 3
"""SD_LISTEN_FDS_START: the first descriptor that is handed over."""


def given_sockets(environment: MutableMapping[str, str] | None = None, first: int = FIRST) -> dict[str, socket.socket]:
    """By FileDescriptorName=, the unix stream sockets handed to this process, which listen already; none: empty.

    For one call: LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES are gone from the environment afterwards, and no program
    that is started later inherits a socket. Raises WattkeeperError for anything else than such sockets, each with a
    name of its own.
    """
    env = os.environ if environment is None else environment
    pid, count, names = (env.pop(f"LISTEN_{key}", "") for key in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count:
        return {}  # nothing, or meant for the process that started us
    if not count.isdecimal():
        raise WattkeeperError(f"LISTEN_FDS={count} is no number of sockets: start this with systemd, or without it")
    labels = names.split(":") if names else []
    if len(labels) != int(count) or len(set(labels)) != len(labels):
        text = f"systemd gave {count} sockets by the names '{names}': give each its own FileDescriptorName="
        raise WattkeeperError(text)
    return {label: _checked(label, first + at) for at, label in enumerate(labels)}


def _checked(label: str, number: int) -> socket.socket:
    try:
        os.set_inheritable(number, False)
        given = socket.socket(fileno=number)
    except OSError as error:
        raise WattkeeperError(f"descriptor {number} ('{label}') is no socket ({error.strerror})") from None
    listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if given.family != socket.AF_UNIX or given.type != socket.SOCK_STREAM or not listens:
        given.detach()  # not ours to close: nobody said what it is
        raise WattkeeperError(f"socket '{label}' is no unix socket that listens: use ListenStream=/PATH, Accept=no")
    given.setblocking(False)
    return given
