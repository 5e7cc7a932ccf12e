"""Many at once, those that never end, and other users: the actuator answers an honest client all the while."""

import array
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.attackers import (
    AGENT_UID,
    BASELINE_MW,
    HONEST_GPU,
    MAX_MW,
    MIN_MW,
    OTHER_UID,
    ROOT,
    WHILE_S,
    Victim,
    flood,
    hand_written,
    many,
    nothing_changes,
    only_root,
    packet,
    refused,
    tried_by,
)
from tests.lab.waiting import wait_until
from wattkeeper.privileged.server import DEVICE_WAIT_S, MOST_CONNECTIONS


def test_floods_hold_up_nobody(one: Victim) -> None:
    """Not even one that is all about the device that somebody else asks about."""
    gpu, other = one.uuids[2], one.uuids[HONEST_GPU]
    questions = {
        "noise": [b"x" * 600, b"{}", packet(do="set_limit", gpu=gpu, mw=MAX_MW)],
        "questions": [packet(do="baseline", gpu=gpu), packet(do="claim", gpu=gpu)],
        "questions about one device": [packet(do="baseline", gpu=other)],
    }
    assert one.ask(packet(do="claim", gpu=gpu)) == {"is": BASELINE_MW}
    for name, asked in questions.items():
        with nothing_changes(one), one.served(f"a flood of {name}"), many(one, MOST_CONNECTIONS) as held:
            answered = flood(held, asked)
        assert sum(map(bool, answered)) > MOST_CONNECTIONS / 2, "most got in, and were answered"


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """More than 1,024 of them, in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_connections(one: Victim) -> None:
    """They get no more than their user's share, and leave others theirs."""
    with nothing_changes(one), one.served("1,000 connections"), many(one, 1000):
        assert one.threads <= 2 * MOST_CONNECTIONS + 1
        if ROOT:
            assert one.ask(packet(do="baseline", gpu=one.uuids[0]), uid=0) is not None
    wait_until(lambda: one.ask(packet(do="baseline", gpu=one.uuids[0])), 2, "the agent gets in again", note=False)
    assert any("has too many connections" in line for line in one.told())


def test_one_that_never_asks_and_one_that_never_reads(one: Victim) -> None:
    question = packet(do="baseline", gpu=one.uuids[2])
    with nothing_changes(one), one.served("silent ones"), many(one, MOST_CONNECTIONS // 2) as held:
        for connection in held[::2]:
            connection.settimeout(0.2)
            with suppress(OSError):
                for _ in range(100_000):
                    connection.send(question)
        time.sleep(WHILE_S)


def test_descriptors_that_are_sent_along_are_not_kept(one: Victim) -> None:
    one.ask(packet(do="baseline", gpu=one.uuids[2]))
    before = one.descriptors
    with one.connect() as connection, Path("/dev/null").open("rb") as null:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()] * 100))]
        for _ in range(20):
            connection.sendmsg([packet(do="baseline", gpu=one.uuids[2])], rights)
            assert connection.recv(65536)
        assert one.descriptors <= before + 1


def test_a_device_that_hangs_holds_up_its_own_alone(one: Victim) -> None:
    """However often an agent comes back and asks about it: it does not use up the agent's connections."""
    hung, other = one.uuids[0], one.uuids[1]
    one.simulation.fault(0, "hang")
    try:
        with one.served("a device that hangs"):
            with many(one, MOST_CONNECTIONS - 2) as held:  # all are there before the first begins to wait
                for connection in held:
                    connection.send(packet(do="set_limit", gpu=hung, mw=MIN_MW))
            wait_until(lambda: one.threads >= MOST_CONNECTIONS - 2, 2, "all wait", note=False)
            answer = one.ask(packet(do="set_limit", gpu=hung, mw=MIN_MW))
            assert answer is not None and answer["kind"] == "timeout"
            wait_until(lambda: one.threads <= 8, DEVICE_WAIT_S, "they have left", note=False)
            assert one.ask(packet(do="set_limit", gpu=other, mw=MIN_MW)) == {"is": MIN_MW}
    finally:
        one.simulation.clear_fault(0)
    wait_until(lambda: "is" in (one.ask(packet(do="set_limit", gpu=hung, mw=300_000)) or {}), 3, "mended", note=False)


@only_root
def test_lack_of_descriptors_is_outlived(one: Victim) -> None:
    """Any user can use up the node's; here the actuator's own limit stands for that."""
    before = resource.prlimit(one.actuator.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(one.actuator.pid, resource.RLIMIT_NOFILE, (4, before[1]))
    try:
        with one.connect() as connection:
            connection.settimeout(0.5)
            connection.send(packet(do="baseline", gpu=one.uuids[0]))
            with pytest.raises(TimeoutError):
                connection.recv(100)
            resource.prlimit(one.actuator.pid, resource.RLIMIT_NOFILE, before)
            connection.settimeout(5)
            assert b'"is"' in connection.recv(100)
    finally:
        resource.prlimit(one.actuator.pid, resource.RLIMIT_NOFILE, before)
    assert any("Too many open files" in line for line in one.told())


# --- another user


@only_root
def test_another_user_does_not_get_in(one: Victim) -> None:
    with pytest.raises(PermissionError):
        one.connect(OTHER_UID)
    lines = len(one.told())
    one.actuator.socket.chmod(0o666)
    try:
        with nothing_changes(one), one.served("a stranger"):
            for question in [packet(do="set_limit", gpu=one.uuids[2], mw=MIN_MW), *hand_written(one.uuids[2])]:
                assert one.ask(question, OTHER_UID) is None
            with many(one, 300, OTHER_UID) as held:
                assert not any(flood(held, [packet(do="set_limit", gpu=one.uuids[2], mw=MIN_MW)]))
    finally:
        one.actuator.socket.chmod(0o600)
    said = [line for line in one.told()[lines:] if f"uid {OTHER_UID} may not ask" in line]
    assert 1 <= len(said) <= 2, "once a minute"


_TRY_ALL = """
pid, folder = int(words[0]), words[1]
for number in signal.valid_signals():
    may(f"signal {number}", os.kill, pid, number)
for name in ("environ", "mem", "maps", "stack", "syscall", "io"):
    may(f"read {name}", lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
for name in ("cwd", "root", "fd"):
    may(f"look into {name}", os.listdir, f"/proc/{pid}/{name}/")
for name in ("oom_score_adj", "mem", "coredump_filter", "attr/current", "timens_offsets"):
    may(f"write {name}", lambda: os.write(os.open(f"/proc/{pid}/{name}", os.O_WRONLY), b"0"))
may("limit it", resource.prlimit, pid, resource.RLIMIT_NOFILE, (3, 3))
may("slow it down", os.setpriority, os.PRIO_PROCESS, pid, 19)
may("bind it", os.sched_setaffinity, pid, {0})
if ctypes.CDLL(None).ptrace(16, pid, 0, 0) == 0:
    got.append("trace it")
may("list the baselines", os.listdir, folder + "/baseline")
for where in ("", "/baseline"):
    may(f"make a file in {where}", os.open, folder + where + "/x", os.O_CREAT | os.O_WRONLY)
for name in ("actuator.sock", "baseline"):
    may(f"rename {name}", os.rename, f"{folder}/{name}", f"{folder}/y")
    may(f"open {name} to all", os.chmod, f"{folder}/{name}", 0o777)
    may(f"own {name}", os.chown, f"{folder}/{name}", user, user)
may("remove the socket", os.unlink, folder + "/actuator.sock")
print(got)
"""


@only_root
@pytest.mark.parametrize("uid", [AGENT_UID, OTHER_UID])
def test_nobody_but_root_signals_traces_or_reads_it(one: Victim, uid: int) -> None:
    with nothing_changes(one):
        got = tried_by(uid, _TRY_ALL, one.actuator.pid, one.run_dir)
    one.actuator.socket.chmod(0o600)
    own = ["open actuator.sock to all", "own actuator.sock"] if uid == AGENT_UID else []  # which lets nobody else in
    assert got == f"{own}\n"


def test_what_it_has_said_and_how_large_it_is_in_the_end(actuator: Victim) -> None:
    one = actuator
    assert refused(one.ask(b"{}"))
    said = one.told()
    print(f"{len(said)} refusals told, {one.rss_mib:.1f} MiB, {one.threads} threads, {one.descriptors} descriptors")
    assert said and all(line.isprintable() and len(line) < 200 for line in said)
    one.actuator.daemon.signal(signal.SIGTERM)
    assert one.actuator.daemon.wait(5) == -signal.SIGTERM, "at once, and limits stay as they are"
    one.actuator.start()
    assert one.ask(packet(do="baseline", gpu=one.uuids[0])) or one.ask(packet(do="baseline", gpu=one.uuids[0]))
