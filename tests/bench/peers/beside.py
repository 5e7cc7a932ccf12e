"""The peers as the benchmark uses them: on GPUs of their own, with the same latency."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from tests.bench.usage import Usage, scrape
from tests.lab.processes import SEARCH, Daemon, LabError, environment, free_ports
from tests.lab.waiting import wait_until
from wattkeeper.simulator import Profile, Simulation

FOLDER = Path(__file__).parent


class NvmlPeers:
    """A Python Prolog and a client that makes the bare calls; both work on every GPU of their own node."""

    def __init__(self, root: Path, profile: Profile, gpus: int) -> None:
        self._simulation = Simulation.create(root, gpus=gpus, profile=profile)
        self._env = environment(root.parent, **self._simulation.env())
        self._direct = subprocess.Popen(
            [sys.executable, str(FOLDER / "direct_calls.py")],
            env=self._env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def direct_s(self, limit_mw: int) -> float:
        """The time of the driver's own calls: every limit set and read back."""
        assert self._direct.stdin is not None
        assert self._direct.stdout is not None
        self._direct.stdin.write(f"{limit_mw}\n")
        answer = self._direct.stdout.readline()
        if not answer:
            raise LabError("the client of the driver's own calls has ended")
        return int(answer) / 1e9

    def prolog_s(self, job: dict[str, str]) -> float:
        """The time of the Python Prolog, from its start to its end, as slurmd sees it."""
        start = time.monotonic()
        argv = [sys.executable, str(FOLDER / "prolog_pynvml.py")]
        done = subprocess.run(argv, env={**self._simulation.env(), **job}, stdin=subprocess.DEVNULL)
        took = time.monotonic() - start
        if done.returncode != 0:
            raise LabError("the Python Prolog failed")
        return took

    def close(self) -> None:
        if self._direct.stdin is not None:
            self._direct.stdin.close()
        self._direct.wait(5)
        if self._direct.stdout is not None:
            self._direct.stdout.close()
        self._simulation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BareReader:
    """A client of the same simulated GPUs that makes the calls of a tick, and nothing else, once a second."""

    def __init__(self, root: Path, simulation: Simulation) -> None:
        argv = [sys.executable, str(FOLDER / "bare_reads.py")]
        self._daemon = Daemon("bare reader", argv, environment(root, **simulation.env()), root / "bare-reader.log")
        self._daemon.start()
        self.usage = Usage(self._daemon.pid)

    def close(self) -> None:
        self._daemon.stop()


class NodeExporter:
    """Debian's prometheus-node-exporter with its own defaults. ``usage`` is None where it is not installed."""

    def __init__(self, root: Path) -> None:
        self.url = ""
        self.usage: Usage | None = None
        self._daemon: Daemon | None = None
        name = "prometheus-node-exporter"
        if shutil.which(name, path=SEARCH) is None:
            return
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/metrics"
        argv = [name, f"--web.listen-address=127.0.0.1:{port}"]
        self._daemon = Daemon(name, argv, environment(root), root / "node-exporter.log")
        self._daemon.start()
        wait_until(self._answers, 5, "node-exporter answers", note=False)
        self.usage = Usage(self._daemon.pid)

    def _answers(self) -> bool:
        if self._daemon is not None:
            self._daemon.check()
        try:
            return bool(scrape(self.url))
        except OSError:
            return False

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.stop()
