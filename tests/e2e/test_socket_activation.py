"""systemd holds the agent's sockets: what hooks say while the agent is being restarted waits for the next one."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.agents import gpu_status, limits, metric, post, start_afresh, wait_limit
from tests.lab import Lab, Node
from tests.lab.held import HeldAgent, HeldSockets
from tests.lab.waiting import record, wait_until

HOOK_BOUND_S = {"prolog": 2.0, "epilog": 0.5}


@dataclass
class Held:
    """A node whose agent has its sockets from outside."""

    lab: Lab
    node: Node
    agent: HeldAgent

    def hook(self, event: str, job: int, gpus: str) -> subprocess.Popen[str]:
        """The shipped hook for a job of the partition that is capped at 300 W, begun as slurmd begins it."""
        environment = {
            "SLURMD_NODENAME": self.node.name,
            "SLURM_CLUSTER_NAME": "lab",
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_UID": str(os.getuid()),
            "SLURM_JOB_GPUS": gpus,
            "SLURM_JOB_PARTITION": "debug",
        }
        hook = self.lab.files.hooks / event
        return subprocess.Popen([hook], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def running(self) -> dict[int, list[int]]:
        """The GPUs of each job that has not ended."""
        jobs = self.node.agent.get("/v1/status")["jobs"]
        return {job["job_id"]: [gpu["gpu"] for gpu in job["gpus"]] for job in jobs if job["ended_at"] is None}


@pytest.fixture
def held(one_agent: Lab) -> Iterator[Held]:
    node = one_agent.node(1)
    start_afresh(node)
    node.agent.stop()
    sockets = HeldSockets(node.files.run_dir)
    agent = HeldAgent(node.agent, sockets)
    try:
        agent.start()
        yield Held(one_agent, node, agent)
    finally:
        agent.kill()
        sockets.close()


def finish(hooks: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    return [(hook.wait(30), hook.communicate()[1]) for hook in hooks]


def test_hooks_are_answered_on_sockets_that_were_given(held: Held) -> None:
    assert post(held.node, "prolog", 1, "0", JOB_PARTITION="debug") == "applied"
    assert limits(held.node)[0] == 300
    assert held.node.agent.events_socket.stat().st_mode & 0o777 == 0o600
    assert held.node.agent.read_socket.stat().st_mode & 0o777 == 0o666


def answered_over_a_restart(held: Held, end: str, first: int) -> bool:
    """Three jobs begin while no agent listens; whether the next one was in time to answer them all."""
    getattr(held.agent, end)()
    held.agent.begin()
    wait_until(lambda: held.agent.has_lock, 5, "the next agent begins", note=False)
    held.agent.signal(signal.SIGSTOP)  # a loaded machine takes longer to load Python than a Prolog has patience
    start = time.monotonic()
    hooks = [held.hook("prolog", first + number, str(number + 1)) for number in range(3)]
    time.sleep(0.1)
    assert [hook.poll() for hook in hooks] == [None] * 3  # they wait
    held.agent.signal(signal.SIGCONT)
    held.agent.wait_ready()
    answers = finish(hooks)
    record("a Prolog over a restart of the agent", time.monotonic() - start, HOOK_BOUND_S["prolog"])
    in_time = answers == [(0, "")] * 3
    if in_time:
        assert held.node.spooled() == []
        assert limits(held.node) == {0: 300, 1: 300, 2: 300, 3: 300}
    wait_limit(held.node, 3, 300, 2, "the caps of jobs that came meanwhile")
    jobs = {1: [0], first: [1], first + 1: [2], first + 2: [3]}
    wait_until(lambda: held.running() == jobs, 2, "jobs that came meanwhile", note=False)
    return in_time


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_hook_during_a_restart_is_answered_by_the_next_agent(held: Held, end: str) -> None:
    assert finish([held.hook("prolog", 1, "0")]) == [(0, "")]
    if not answered_over_a_restart(held, end, 2):  # a loaded machine may take longer than a Prolog's patience, once
        for job in (2, 3, 4):
            assert post(held.node, "epilog", job, str(job - 1)) == "applied"
        assert answered_over_a_restart(held, end, 5)


def test_nothing_is_lost_where_the_agent_stays_away(held: Held) -> None:
    """Hooks give up at their own deadline and spool; what they had sent to the socket is there as well."""
    assert finish([held.hook("prolog", 1, "0"), held.hook("prolog", 2, "1")]) == [(0, "")] * 2
    held.agent.kill()
    start = time.monotonic()
    waiting = {"prolog": held.hook("prolog", 3, "2"), "epilog": held.hook("epilog", 1, "0")}
    for event in ("epilog", "prolog"):
        [(status, said)] = finish([waiting[event]])
        record(f"{event} with nobody behind the socket", time.monotonic() - start, HOOK_BOUND_S[event])
        assert status == 0
        assert "did not answer within" in said
    assert sorted(event.event for event in held.node.spooled()) == ["epilog", "prolog"]
    held.agent.start()
    wait_until(lambda: held.running() == {2: [1], 3: [2]}, 2, "events that waited twice over")
    assert limits(held.node) == {0: 700, 1: 300, 2: 300, 3: 700}
    assert held.node.spooled() == []
    wait_until(lambda: metric(held.node, "hook_events_total", outcome="duplicate") == 2, 2, "told twice", note=False)
    assert limits(held.node) == {0: 700, 1: 300, 2: 300, 3: 700}


def test_the_sockets_stay_when_the_agent_ends(held: Held) -> None:
    sockets: list[Path] = [held.node.agent.events_socket, held.node.agent.read_socket]
    before = [path.stat().st_ino for path in sockets]
    assert held.agent.stop() == 0
    assert [path.stat().st_ino for path in sockets] == before
    held.agent.start()
    assert [path.stat().st_ino for path in sockets] == before
    assert gpu_status(held.node)["gpu"] == 0
