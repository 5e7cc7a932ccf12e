"""Starting and ending the lab's programs."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.lab.keeper import MARK
from tests.lab.waiting import PATIENCE

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel", "sdiag")
SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class LabError(Exception):
    """The lab could not do what was asked; the message holds the program's own words."""


def missing_programs(extra: Iterable[str] = ()) -> list[str]:
    """The lab's programs that this machine lacks."""
    return [name for name in (*PROGRAMS, *extra) if shutil.which(name, path=SEARCH) is None]


def program(name: str) -> str:
    path = shutil.which(name, path=SEARCH)
    if path is None:
        raise LabError(f"{name} is not installed on this machine")
    return path


def environment(root: Path, **more: str) -> dict[str, str]:
    """The environment of a lab's programs: marked, and free of any other Slurm's variables."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "WATTKEEPER"))}
    return {**clean, "PATH": SEARCH, MARK: str(root), **more}


def free_ports(count: int) -> list[int]:
    """Ports below the ephemeral range that nothing listens on, held together while they are drawn.

    They are free again before they are used: processes that test at the same time draw from ports of their own.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    drawn: dict[int, socket.socket] = {}
    try:
        while len(drawn) < count:
            port = random.randrange(20000 + worker, 32000, workers)  # noqa: S311 - no secret
            holder = socket.socket()
            try:
                holder.bind(("127.0.0.1", port))
            except OSError:
                holder.close()
                continue
            drawn[port] = holder
    finally:
        for holder in drawn.values():
            holder.close()
    return list(drawn)


class Daemon:
    """One program in the foreground, its output in a log file."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = dict(env)
        self.log = log
        self.pass_fds: tuple[int, ...] = ()
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.alive:
            raise LabError(f"{self.name} runs already")
        output: IO[bytes]
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                [program(self.argv[0]), *self.argv[1:]],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=self.pass_fds,
            )

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise LabError(f"{self.name} was never started")
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        return None if self._child is None else self._child.poll()

    def signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def wait(self, patience_s: float) -> int | None:
        """The exit status, or None where the program still runs after that time."""
        if self._child is None:
            return None
        try:
            return self._child.wait(patience_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, patience_s: float = 5.0) -> int | None:
        """Asks the program to end (SIGTERM), then kills it. Returns its exit status."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if self._child is not None and self.wait(patience_s) is None:
            self.kill()
        return self.returncode

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait(PATIENCE * 5)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def check(self) -> None:
        """Raises LabError with the end of the log where the program has ended."""
        if not self.alive:
            raise LabError(f"{self.name} ended with status {self.returncode}:\n{self.text()[-3000:]}")


class Keeper:
    """The process that ends the lab when this one is gone; see keeper.py."""

    def __init__(self, root: Path) -> None:
        clean = {key: value for key, value in os.environ.items() if key not in (MARK, "SLURM_CONF")}
        script = Path(__file__).with_name("keeper.py")
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=clean,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def finish(self) -> None:
        """Lets the keeper kill what is left and remove the lab's folder. Raises LabError where something survived."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        if self._child.wait(PATIENCE * 30) != 0:
            raise LabError("processes of the lab survived SIGKILL")


def run(
    argv: Sequence[str], env: Mapping[str, str], *, stdin: str | None = None, timeout_s: float = 30, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Runs one command. Raises LabError with its words where it fails (`check`) or takes too long."""
    start = time.monotonic()
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {}
    try:
        done = subprocess.run(
            [program(argv[0]), *argv[1:]],
            env=dict(env),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            **source,  # type: ignore[call-overload]
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no end after {time.monotonic() - start:.1f} s") from error
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    result: subprocess.CompletedProcess[str] = done
    return result
