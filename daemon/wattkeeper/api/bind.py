"""Addresses to listen on, and who is at the other end of one."""

import asyncio
import errno
import os
import socket
import stat
import struct
from pathlib import Path

from aiohttp import web

from wattkeeper.config.settings import Listen
from wattkeeper.errors import WattkeeperError

BACKLOG = 256
"""At the pace of ``web.ACCEPT_PACE_S`` nobody waits longer than a second and a half to be let in."""

METRICS_MODE = 0o660
"""Of the metrics' unix socket: the agent's user and group. Who else may read is the site's to say, by the group."""


def bind_private(path: Path, mode: int, owner: int | None) -> socket.socket:
    """A listening address that never, not for an instant, has a wider mode than its last."""
    path.unlink(missing_ok=True)  # the lock on run_dir is ours: a socket that is there is nobody's
    listener = _bind(path, mode)
    if owner is not None:
        os.chown(path, owner, -1)
    return listener


def bind_unix(path: Path) -> socket.socket:
    """``metrics.listen: unix:…``. A socket that nobody answers on is replaced; anything else there is left alone.

    Raises WattkeeperError where it cannot be made.
    """
    where = f"metrics.listen unix:{path}"
    try:
        if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise WattkeeperError(f"{where}: {error.strerror}") from None
    try:
        listener = _bind(path, METRICS_MODE)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        text = "something is there; choose another path, or remove it" if taken else f"{error.strerror}"
        raise WattkeeperError(f"{where}: {text}") from None
    listener.listen(BACKLOG)
    return listener


async def bind_tcp(listen: Listen) -> list[socket.socket]:
    """Every address that the host's name stands for. Raises WattkeeperError where one is taken or not of this node."""
    where = f"metrics.listen {listen.host}:{listen.port}"
    listeners: list[socket.socket] = []
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listener = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise WattkeeperError(f"{where}: {error.strerror}; choose another port, or null") from None
    return listeners


def peer_uid(request: web.Request) -> int:
    """The kernel's word for who is at the other end (SO_PEERCRED, unix(7)); -1 where it does not know."""
    transport = request.transport
    channel = transport.get_extra_info("socket") if transport else None
    if channel is None:
        return -1
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


def _bind(path: Path, mode: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(path))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(1.0)
        try:
            channel.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
