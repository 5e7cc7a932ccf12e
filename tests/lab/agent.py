"""One node's agent, started as systemd starts it: NOTIFY_SOCKET and all, and beside its actuator.

Where we are root it runs as its unit says: as another user, without a capability. Else all are one user.
"""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.actuator import Actuator
from tests.lab.config import wattkeeper
from tests.lab.processes import Daemon, LabError
from tests.lab.sockets import NotifySocket, get_json, request
from tests.lab.spec import NodeFiles
from tests.lab.units import AGENT, can_be_another_user, unit_command
from tests.lab.waiting import PATIENCE

START_BOUND_S = 5.0

AGENT_UID = 64_123 if can_be_another_user() else None
"""Nobody's on this machine."""


class Agent:
    def __init__(self, files: NodeFiles, env: Mapping[str, str], metrics_port: int) -> None:
        self.files = files
        self.metrics_port = metrics_port
        self.events_socket = files.run_dir / "events.sock"
        self.read_socket = files.run_dir / "read.sock"
        self.notify = NotifySocket(files.notify_socket)
        self.env = {**env, "NOTIFY_SOCKET": str(files.notify_socket), "PYTHONUNBUFFERED": "1"}
        argv = [wattkeeper(), "run", "--config", str(files.settings)]
        if AGENT_UID is not None:
            argv = [*unit_command(AGENT, user=AGENT_UID), *argv]
        self.daemon = Daemon(f"agent of {files.name}", argv, self.env, files.agent_log)
        self.actuator = Actuator(files.run_dir, env, files.root / "actuator.log", AGENT_UID)

    def start(self, *, wait: bool = True, env: Mapping[str, str] | None = None) -> None:
        """Starts the agent; `env` is added for this start alone. Returns when it has said READY=1."""
        self.prepare()
        self.actuator.ensure()
        self.notify.clear()
        self.daemon.env = {**self.env, **(env or {})}
        self.daemon.start()
        if wait:
            self.wait_ready()

    def prepare(self) -> None:
        """The folders as systemd-tmpfiles and StateDirectory= leave them (systemd/), where there are two users."""
        if AGENT_UID is None:
            return
        run_dir, spool, lock = self.files.run_dir, self.files.run_dir / "spool", self.files.run_dir / "lock"
        spool.mkdir(exist_ok=True)
        lock.touch()
        for path, mode in ((run_dir, 0o1775), (spool, 0o2770), (lock, 0o660)):
            os.chown(path, 0, AGENT_UID)
            path.chmod(mode)
        self.files.state_dir.mkdir(exist_ok=True)
        for path in (self.files.state_dir, *self.files.state_dir.rglob("*")):
            os.chown(path, AGENT_UID, AGENT_UID)
        self.files.state_dir.chmod(0o700)
        self.files.notify_socket.chmod(0o666)
        for folder in (self.files.root, *self.files.root.parents):
            if not folder.stat().st_mode & 0o001:  # a folder of mkdtemp's, say
                folder.chmod(folder.stat().st_mode & 0o7777 | 0o011)

    def wait_ready(self, bound_s: float = START_BOUND_S) -> float:
        """Waits for READY=1. Raises LabError with the agent's log where it ended or stayed silent."""
        start = time.monotonic()
        while not self.notify.seen("READY", "1"):
            self.daemon.check()
            if time.monotonic() - start > PATIENCE * bound_s:
                raise LabError(f"{self.daemon.name}: no READY=1:\n{self.log_text()[-3000:]}")
            time.sleep(0.01)
        return time.monotonic() - start

    @property
    def alive(self) -> bool:
        return self.daemon.alive

    @property
    def pid(self) -> int:
        return self.daemon.pid

    def stop(self) -> int | None:
        """SIGTERM, and SIGKILL ten seconds later. Returns the exit status."""
        return self.daemon.stop(10)

    def kill(self) -> None:
        self.daemon.kill()

    def pause(self) -> None:
        """A hung agent: its sockets accept, nobody answers."""
        self.daemon.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.daemon.signal(signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        """SIGHUP, as `systemctl reload` sends it; the agent says READY=1 again when it has read everything."""
        self.notify.clear()
        self.daemon.signal(signal.SIGHUP)
        self.wait_ready()

    def log_text(self) -> str:
        return self.daemon.text()

    def get(self, url: str) -> Any:
        """JSON of a GET on the reading socket, such as /v1/status."""
        return get_json(self.read_socket, url)

    def post_event(self, event: str, environment: bytes) -> tuple[int, bytes]:
        """Posts a hook's environment, as the shipped hooks do."""
        return request(self.events_socket, f"/v1/events/{event}", environment)

    def close(self) -> None:
        self.stop()
        self.notify.close()
        self.actuator.close()
        self.actuator.notify.close()

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def log_path(self) -> Path:
        return self.files.agent_log
