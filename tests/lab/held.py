"""What systemd is to the agent's sockets: it makes and holds them, whether an agent is there or not."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.units import AGENT, SOCKETS, Unit, read_unit, socket_command
from tests.lab.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.lab.agent import Agent

KINDS = {"ListenStream": socket.SOCK_STREAM, "ListenSequentialPacket": socket.SOCK_SEQPACKET}


class HeldSockets:
    """The sockets of a service, as the shipped .socket units say, in a folder that stands for their own.

    ``user``: the uid that stands for a SocketUser= other than root; only root can give it a socket.
    """

    def __init__(self, run_dir: Path, service: Path = AGENT, user: int | None = None) -> None:
        self._held: dict[str, socket.socket] = {}
        for unit in map(read_unit, SOCKETS):
            if unit.service == service.name:
                self._held[unit.get("FileDescriptorName") or unit.path.name] = _listener(unit, run_dir, user)

    @property
    def descriptors(self) -> dict[str, int]:
        return {name: listener.fileno() for name, listener in self._held.items()}

    def close(self) -> None:
        for listener in self._held.values():
            listener.close()


def _listener(unit: Unit, run_dir: Path, user: int | None) -> socket.socket:
    key = next(key for key in KINDS if unit.has(key))
    path = run_dir / Path(unit.get(key) or "").name
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, KINDS[key])
    before = os.umask(0o777 & ~int(unit.get("SocketMode") or "0666", 8))
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    if user is not None and unit.get("SocketUser") != "root":
        os.chown(path, user, user)
    listener.listen(int(unit.get("Backlog") or "128"))
    return listener


class HeldAgent:
    """A lab's agent, started with the sockets that are held for it."""

    def __init__(self, agent: "Agent", sockets: HeldSockets) -> None:
        self._agent = agent
        self._sockets = sockets
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it has said READY=1."""
        self.begin()
        self.wait_ready()

    def begin(self) -> None:
        """Returns at once."""
        self._agent.notify.clear()
        given = self._sockets.descriptors
        with self._agent.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                [*socket_command(given), *self._agent.daemon.argv],
                env=self._agent.env,
                pass_fds=tuple(given.values()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        assert self._child is not None
        end = time.monotonic() + PATIENCE * 5.0
        while not self._agent.notify.seen("READY", "1"):
            assert self._child.poll() is None and time.monotonic() < end, self._agent.log_text()[-3000:]
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    @property
    def has_lock(self) -> bool:
        """Whether it has come so far as to be the one agent of its run_dir; it listens a little later."""
        assert self._child is not None
        return (self._agent.files.run_dir / "lock").read_text() == f"{self._child.pid}\n"

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._child is not None
        self._child.terminate()
        return self._child.wait(PATIENCE * 10)

    def kill(self) -> None:
        """SIGKILL; does nothing where it has ended."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
