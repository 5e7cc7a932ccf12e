"""The actuator beside an agent, started as systemd starts it: its socket held by somebody else."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from tests.lab.held import HeldSockets
from tests.lab.processes import Daemon, LabError, environment
from tests.lab.sockets import NotifySocket
from tests.lab.units import ACTUATOR, unit_command
from tests.lab.waiting import wait_until
from wattkeeper.gpus.actuator import SOCKET, RemoteLimits
from wattkeeper.simulator import Simulation

START_BOUND_S = 2.0


class Actuator:
    """``uid``: of the agent that it serves; None: our own."""

    def __init__(self, run_dir: Path, env: Mapping[str, str], log: Path, uid: int | None = None) -> None:
        self._run_dir = run_dir
        self._uid = os.geteuid() if uid is None else uid
        self._held: HeldSockets | None = None
        self.notify = NotifySocket(log.with_suffix(".notify"))
        self.env = {**env, "NOTIFY_SOCKET": str(log.with_suffix(".notify"))}
        self.daemon = Daemon("actuator", [], self.env, log)

    @property
    def socket(self) -> Path:
        return self._run_dir / SOCKET

    @property
    def pid(self) -> int:
        return self.daemon.pid

    @property
    def alive(self) -> bool:
        return self.daemon.alive

    def ensure(self) -> None:
        """Starts it where it is not running, or has been left without its socket."""
        if not self.alive or not self.socket.exists():
            self.close()
            self.start()

    def start(self, **env: str) -> None:
        """Starts it; returns when it has said READY=1. The socket stays as it was, with what waits in it."""
        if self._held is None or not self.socket.exists():
            self._held = HeldSockets(self._run_dir, ACTUATOR, user=self._uid if os.geteuid() == 0 else None)
        given = self._held.descriptors
        words = ["--run-dir", str(self._run_dir), "--agent-user", str(self._uid)]
        confined = unit_command(ACTUATOR, sockets=given)
        self.daemon.argv = [*confined, sys.executable, "-m", "wattkeeper.privileged", *words]
        self.daemon.env = {**self.env, **env}
        self.daemon.pass_fds = tuple(given.values())
        self.notify.clear()
        self.daemon.start()
        wait_until(self._ready, START_BOUND_S, "the actuator is ready", note=False)

    def _ready(self) -> bool:
        if not self.alive:
            raise LabError(f"the actuator ended:\n{self.daemon.log.read_text()[-3000:]}")
        return self.notify.seen("READY", "1")

    def kill(self) -> None:
        self.daemon.kill()

    def close(self) -> None:
        """Ends it, and gives up its socket."""
        self.daemon.stop(5)
        if self._held is not None:
            self._held.close()
            self._held = None


@contextmanager
def actuator_process(run_dir: Path, simulation: Simulation) -> Iterator[RemoteLimits]:
    """An actuator for simulated GPUs, and the way to it."""
    actuator = Actuator(run_dir, environment(run_dir, **simulation.env()), run_dir / "actuator.log")
    try:
        actuator.start()
        with closing(RemoteLimits(actuator.socket)) as limits:
            yield limits
    finally:
        actuator.close()
        actuator.notify.close()
