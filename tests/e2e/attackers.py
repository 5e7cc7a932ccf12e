"""An actuator to attack: real, confined as its unit says, on simulated GPUs; and those who attack it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab.actuator import Actuator
from tests.lab.processes import environment
from tests.lab.waiting import record, wait_until
from tests.property.packets import STRANGE_GPUS, STRANGE_NUMBERS, STRANGE_VERBS
from wattkeeper.privileged.server import LONGEST, MOST_TOLD
from wattkeeper.simulator import Simulation
from wattkeeper.units import Milliwatts

ROOT = os.geteuid() == 0
AGENT_UID = 64001 if ROOT else os.geteuid()
OTHER_UID = 64002
GPUS, HONEST_GPU = 4, 3
"""The last GPU is the honest client's, the others are those that attacks are about."""

MIN_MW, BASELINE_MW, MAX_MW = 200_000, 600_000, 700_000
ANSWER_S = 10.0
WHILE_S = 1.5
RSS_BOUND_MIB = 20.0
HONEST_BOUND_S = 0.1
HOOK_WAIT_S = 2.0
"""So long the Prolog waits for the agent, which waits for the actuator."""


only_root = pytest.mark.skipif(not ROOT, reason="only root can become another user")

_AS_USER = """
import ctypes, os, resource, signal, socket, sys
user, words, got = int(sys.argv[1]), sys.argv[2:], []
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
def may(what, call, *words):
    try:
        call(*words)
    except OSError:
        return
    got.append(what)
"""

_HONEST = """
import sys, threading, time
from pathlib import Path
from wattkeeper.gpus.actuator import RemoteLimits
limits, uuid, took, over = RemoteLimits(Path(sys.argv[1])), sys.argv[2], [], threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
limits.set_limit(uuid, 400_000)
print("begun", flush=True)
while not took or not over.wait(0.01):
    start = time.monotonic()
    assert limits.baseline(uuid) == (600_000, True)
    assert limits.set_limit(uuid, 400_000) == 400_000
    took.append(time.monotonic() - start)
print(max(took), sorted(took)[len(took) * 9 // 10], len(took), flush=True)
"""


def tried_by(uid: int, attempts: str, *words: object) -> str:
    """What another user's Python says of its attempts: it has its `words`, `may(what, call, ...)`, and what it `got`.

    It becomes that user itself, with every module it may want: the interpreter may lie where only root can read.
    """
    argv = [sys.executable, "-I", "-S", "-c", _AS_USER + attempts, str(uid), *map(str, words)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    return done.stdout


class Victim:
    """The actuator, for an agent of ``AGENT_UID``. All GPUs were found at ``BASELINE_MW``."""

    def __init__(self, root: Path) -> None:
        self.run_dir = root / "run"
        self.run_dir.mkdir(parents=True)
        root.chmod(0o755)
        self.run_dir.chmod(0o755)
        self.simulation = Simulation.create(root / "sim", model="H100", gpus=GPUS, limit_mw=Milliwatts(BASELINE_MW))
        self.uuids = [gpu.uuid for gpu in self.simulation.show().gpus]
        self._env = environment(root, **self.simulation.env())
        self.actuator = Actuator(self.run_dir, self._env, root / "actuator.log", AGENT_UID)
        self.actuator.start()
        self._own: dict[int, socket.socket] = {}

    def close(self) -> None:
        for connection in self._own.values():
            connection.close()
        self.actuator.close()
        self.actuator.notify.close()
        self.simulation.close()

    def connect(self, uid: int = AGENT_UID) -> socket.socket:
        """A connection of that user's: the kernel goes by who connects. Raises OSError."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        before = os.geteuid()
        try:
            if uid != before:
                os.seteuid(uid)
            connection.connect(str(self.actuator.socket))
        except OSError:
            connection.close()
            raise
        finally:
            if uid != before:
                os.seteuid(before)
        connection.settimeout(ANSWER_S)  # not before: a connect with a time-out fails at once where others wait
        return connection

    def ask(self, packet: bytes, uid: int = AGENT_UID) -> dict[str, Any] | None:
        """The answer to a packet, sent over the user's one connection; None where it hung up, or never listened."""
        if uid not in self._own:
            self._own[uid] = self.connect(uid)
        answer = exchange(self._own[uid], packet)
        if answer is None:
            self._own.pop(uid).close()
        return answer

    def state(self) -> tuple[dict[int, int], dict[str, bytes]]:
        """Every GPU's limit in milliwatts, by minor number, and every baseline file."""
        limits = {gpu.minor: int(gpu.requested_mw) for gpu in self.simulation.show().gpus}
        return limits, {path.name: path.read_bytes() for path in (self.run_dir / "baseline").glob("*")}

    @property
    def rss_mib(self) -> float:
        return float(self._status("VmRSS")) / 1024

    @property
    def threads(self) -> int:
        return int(self._status("Threads"))

    def settle(self) -> int:
        """Waits until whoever has gone is forgotten; the threads that are left."""
        wait_until(lambda: self.threads <= 1 + len(self._own), 2, "all have left", note=False)
        return self.threads

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.actuator.pid}/fd").iterdir()))

    def told(self) -> list[str]:
        """Every refusal in its journal."""
        return [line for line in self.actuator.daemon.text().splitlines() if "refused" in line]

    def _status(self, name: str) -> str:
        text = Path(f"/proc/{self.actuator.pid}/status").read_text()
        return next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:"))

    @contextmanager
    def served(self, what: str) -> Iterator[None]:
        """Somebody honest asks all the while, a hundred times a second: each answer is right, and soon there.

        Soon is for nine of ten: the attackers share the processors with who is attacked. In time for a hook is for all.
        """
        argv = [sys.executable, "-c", _HONEST, str(self.actuator.socket), self.uuids[HONEST_GPU]]
        child = subprocess.Popen(argv, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdin is not None and child.stdout is not None
        try:
            assert child.stdout.readline() == "begun\n"
            yield
            child.stdin.close()
            worst_s, p90_s, count = child.stdout.readline().split()
        finally:
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()
        print(f"{what}: {count} honest rounds, the slowest {float(worst_s) * 1000:.1f} ms, {self.rss_mib:.1f} MiB")
        assert float(worst_s) < HOOK_WAIT_S, f"{what}: the slowest of {count} honest rounds took {worst_s} s"
        record(f"{what}: nine of ten of {count} honest rounds", float(p90_s), HONEST_BOUND_S)


def exchange(connection: socket.socket, packet: bytes) -> dict[str, Any] | None:
    """One packet and its answer; None where there is none to come."""
    try:
        connection.send(packet)
        answer = connection.recv(65536)
    except (BrokenPipeError, ConnectionResetError):
        return None
    return dict(json.loads(answer)) if answer else None


def packet(**words: Any) -> bytes:
    return json.dumps(words).encode()


@contextmanager
def victim() -> Iterator[Victim]:
    root = Path(tempfile.mkdtemp(prefix="wk-attack-", dir="/tmp")).resolve()
    try:
        one = Victim(root)
        try:
            yield one
        finally:
            one.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def many(one: Victim, count: int, uid: int = AGENT_UID) -> Iterator[list[socket.socket]]:
    """So many connections at once, whatever the actuator does with them."""
    held: list[socket.socket] = []
    try:
        held.extend(one.connect(uid) for _ in range(count))
        yield held
    finally:
        for connection in held:
            connection.close()


@contextmanager
def watched(actuator: Victim) -> Iterator[None]:
    """Fails where a test left the actuator dead or large, and where it said more than may be said in a minute."""
    begun, pid = time.monotonic(), actuator.actuator.pid
    lines = len(actuator.told())
    yield
    assert actuator.actuator.alive and actuator.actuator.pid == pid, actuator.actuator.daemon.text()
    assert actuator.rss_mib <= RSS_BOUND_MIB, f"{actuator.rss_mib:.1f} MiB"
    minutes = 2 + (time.monotonic() - begun) // 60
    assert len(actuator.told()) - lines <= MOST_TOLD * minutes
    assert "Traceback" not in actuator.actuator.daemon.text()


@contextmanager
def nothing_changes(one: Victim) -> Iterator[None]:
    before = one.state()
    yield
    after = one.state()
    for limits in (before[0], after[0]):
        limits.pop(HONEST_GPU)
    assert after[0] == before[0]
    honest = one.uuids[HONEST_GPU]
    assert {name: text for name, text in after[1].items() if honest not in name} == {
        name: text for name, text in before[1].items() if honest not in name
    }


def refused(answer: dict[str, Any] | None) -> bool:
    return answer is None or ("is" not in answer and answer.keys() == {"kind", "device", "tried", "mend"})


def hand_written(gpu: str) -> Iterator[bytes]:
    """What somebody who has read the server would try."""
    for strange in STRANGE_GPUS:
        for verb in ("set_limit", "claim", "baseline"):
            yield packet(do=verb, gpu=strange, **({"mw": MIN_MW} if verb == "set_limit" else {}))
    for number in STRANGE_NUMBERS:
        yield packet(do="set_limit", gpu=gpu, mw=number)
        yield packet(do="give_back", gpu=gpu, mw=number)
        yield packet(do="evidence", pid=number)
    for verb in STRANGE_VERBS:
        yield packet(do=verb, gpu=gpu)
        yield packet(do=verb, gpu=gpu, mw=MIN_MW)
    right = packet(do="set_limit", gpu=gpu, mw=MIN_MW)
    yield from (right[:at] for at in range(1, len(right)))
    yield from (right + b" " * LONGEST, right + right, right + b"\0", right + b"\n" + right, b"[" + right + b"]")
    yield from (b"[" * LONGEST, b'{"":' * 100 + b"1", b"\xff" * 10, b"null", b'"do"', b"1", b"\xef\xbb\xbf", b"NaN")
    yield packet(do="set_limit", gpu=gpu)
    yield packet(do="set_limit", mw=MIN_MW)
    yield packet(do="set_limit", gpu=gpu, mw=MIN_MW, most="range")
    yield packet(do="claim", gpu=gpu, mw=MIN_MW)
    yield packet(do=["set_limit"], gpu=gpu, mw=MIN_MW)
    yield packet(gpu=gpu, mw=MIN_MW)
    yield b'{"do": "set_limit", "gpu": "%s", "mw": 200000, "mw": -1}' % gpu.encode()
    yield b'{"do": "set_limit", "gpu": "%s", "mw": 200000, "gpu": "../x"}' % gpu.encode()


def flood(held: list[socket.socket], questions: list[bytes]) -> list[int]:
    """Every connection asks one thing after the other, all at the same time; how many answers each got."""
    over = time.monotonic() + WHILE_S
    answered = [0] * len(held)

    def ask(at: int) -> None:
        with suppress(OSError):
            while time.monotonic() < over and exchange(held[at], questions[at % len(questions)]):
                answered[at] += 1

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(held))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{sum(answered)} answers, to {sum(map(bool, answered))} of {len(held)} connections")
    return answered
