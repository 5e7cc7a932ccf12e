"""What the agent makes of events that came late, twice, out of order or never, and of its own death."""

import itertools
import time
from pathlib import Path

import pytest

from tests.e2e.agents import (
    POLICY,
    TICK_S,
    gpu_status,
    hook_environment,
    let_ticks_pass,
    limits,
    metric,
    post,
    wait_limit,
)
from tests.lab import Lab, Node, wait_until
from tests.lab.waiting import record


@pytest.fixture
def node(alone: Lab) -> Node:
    return alone.node(1)


def begun(lab: Lab, *options: str) -> int:
    """A job whose script runs."""
    job = lab.sbatch("echo begun; sleep 120", *options)
    wait_until(lambda: "begun" in lab.output(job), 10, "the job's script runs", note=False)
    return job


def test_every_limit_is_right_soon_after_a_kill_with_jobs_on(alone: Lab, node: Node) -> None:
    """While nobody looks one job ends, another of the same user begins on its GPU, and slurmctld goes away."""
    ends = begun(alone, "--gres=gpu:1", "--comment=power=250W")
    stays = begun(alone, "--gres=gpu:2", "--comment=power=350W")
    assert limits(node) == {0: 250, 1: 350, 2: 350, 3: 700}
    node.agent.kill()
    alone.scancel(ends)
    alone.wait_done(ends)
    begins = begun(alone, "--gres=gpu:1", "--comment=power=450W")
    alone.stop_slurmctld()
    try:
        start = time.monotonic()
        node.agent.start(wait=False)
        want = {0: 450, 1: 350, 2: 350, 3: 700}
        wait_until(lambda: limits(node) == want, 2, "a killed agent's GPUs are right again", every_s=0.002)
        node.agent.wait_ready()
        record("a killed agent is ready again", time.monotonic() - start, 2)
        assert [gpu_status(node, minor)["holders"] for minor in range(4)] == [
            [str(begins)], [str(stays)], [str(stays)], [],
        ]  # fmt: skip
        let_ticks_pass(node)
        assert limits(node) == want
        assert node.agent.get(f"/v1/jobs/{ends}")["ended_at"] is not None
    finally:
        alone.start_slurmctld()
        alone.cancel_all()
        alone.restart_slurmd(1)  # until the node has registered again slurmctld does not know a job's GPUs


def test_a_job_that_ran_through_the_outage_ends_as_any_other(alone: Lab, node: Node) -> None:
    job = begun(alone, "--gres=gpu:2", "--comment=power=350W")
    assert limits(node) == {0: 350, 1: 350, 2: 700, 3: 700}
    node.agent.kill()
    node.agent.start()
    assert limits(node) == {0: 350, 1: 350, 2: 700, 3: 700}
    alone.scancel(job)
    wait_until(lambda: set(limits(node).values()) == {700}, 2 + TICK_S, "given back after an outage")
    assert alone.wait_done(job) == "CANCELLED"


@pytest.mark.parametrize("by", ["hook", "spool"])
def test_a_job_whose_gpu_was_lost_before_the_agent_started_ends_as_any_other(node: Node, by: str) -> None:
    assert post(node, "prolog", 1, "0,1", JOB_COMMENT="power=250W") == "applied"
    node.simulation.fault(1, "lost")
    node.agent.kill()
    if by == "spool":
        time.sleep(0.02)  # hooks read a clock that ticks a hundred times a second
        now = Path("/proc/uptime").read_text().split()[0]
        leave_in_spool(node, f"{now}-1.epilog", hook_environment(1, "0,1"))
    node.agent.start()
    if by == "hook":
        assert post(node, "epilog", 1, "0,1") == "applied"
    assert [gpu["gpu"] for gpu in node.agent.get("/v1/status")["gpus"]] == [0, 2, 3]
    wait_limit(node, 0, 700, 2 * TICK_S, "the GPU that is left is at its baseline")
    job = node.agent.get("/v1/jobs/1")
    assert job["ended_at"] is not None
    assert [gpu["gpu"] for gpu in job["gpus"]] == [0]


def test_an_epilog_that_never_came_is_made_up_for_by_the_next_job(node: Node) -> None:
    assert post(node, "prolog", 1, "0,1", JOB_COMMENT="power=250W") == "applied"
    assert post(node, "prolog", 2, "1", JOB_COMMENT="power=350W") == "applied"
    assert limits(node) == {0: 700, 1: 350, 2: 700, 3: 700}
    assert [gpu_status(node, minor)["holders"] for minor in (0, 1)] == [[], ["2"]]
    assert node.agent.get("/v1/jobs/1")["ended_at"] is not None
    assert post(node, "epilog", 1, "0,1") == "duplicate"  # it came after all
    assert limits(node)[1] == 350


def test_a_late_epilog_does_not_end_the_next_run(node: Node) -> None:
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    assert post(node, "prolog", 1, run=1, JOB_COMMENT="power=250W") == "applied"
    assert post(node, "epilog", 1) in {"duplicate", "late"}
    let_ticks_pass(node, 1)
    assert limits(node)[0] == 250
    assert gpu_status(node)["holders"] == ["1/r1"]
    assert post(node, "epilog", 1, run=1) == "applied"
    assert limits(node)[0] == 700


def test_the_epilog_of_a_requeued_run_counts_one_restart_more(node: Node) -> None:
    """So says Slurm; see docs/decisions/what-slurms-hooks-know.md."""
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    assert post(node, "epilog", 1, run=1) == "applied"
    assert limits(node)[0] == 700
    assert post(node, "prolog", 1, run=1, JOB_COMMENT="power=250W") == "applied"
    assert limits(node)[0] == 250


def test_an_epilog_from_the_spool_is_placed_by_when_it_was_written(node: Node) -> None:
    """That of a requeued run bears the number of the run that is on by the time it is read."""
    before = Path("/proc/uptime").read_text().split()[0]
    assert post(node, "prolog", 1, run=1, JOB_COMMENT="power=250W") == "applied"
    leave_in_spool(node, f"{before}-1.epilog", hook_environment(1, run=1))
    let_ticks_pass(node, 1)
    assert node.spooled() == []
    assert limits(node)[0] == 250
    after = Path("/proc/uptime").read_text().split()[0]
    leave_in_spool(node, f"{after}-2.epilog", hook_environment(1, run=1))
    wait_limit(node, 0, 700, TICK_S + 1, "an Epilog from the spool is taken in")


def leave_in_spool(node: Node, name: str, environment: bytes) -> None:
    """As the hooks do it: complete before it has its name."""
    scratch = node.files.run_dir / "spool" / f".{name}"
    scratch.write_bytes(environment)
    scratch.rename(scratch.with_name(name))


def test_an_event_told_twice_counts_once(node: Node) -> None:
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    writes = metric(node, "cap_writes_total")
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "duplicate"
    assert limits(node)[0] == 250
    assert metric(node, "requests_total", outcome="granted") == 1
    assert metric(node, "cap_writes_total") == writes
    assert post(node, "epilog", 1) == "applied"
    assert post(node, "epilog", 1) == "duplicate"
    assert limits(node)[0] == 700


def test_a_prolog_after_its_own_epilog_is_left_out(node: Node) -> None:
    assert post(node, "epilog", 1) == "unknown_job"
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "late"
    assert post(node, "prolog", 2, JOB_COMMENT="power=250W") == "applied"
    assert post(node, "epilog", 2) == "applied"
    assert post(node, "prolog", 2, JOB_COMMENT="power=250W") == "late"
    let_ticks_pass(node, 1)
    assert limits(node)[0] == 700
    assert gpu_status(node)["holders"] == []


def test_no_order_of_the_events_of_two_jobs_leaves_a_cap_behind(node: Node) -> None:
    """Jobs that share no GPU, each with every event twice, in every order in which each starts before it ends."""
    told = set(itertools.permutations((("prolog", 0), ("epilog", 0), ("prolog", 1), ("epilog", 1))))
    orders = [o for o in told if all(o.index(("prolog", n)) < o.index(("epilog", n)) for n in (0, 1))]
    assert len(orders) == 6
    for number, order in enumerate(orders, start=1):
        for event, gpu in order:
            for _ in range(2):
                post(node, event, 10 * number + gpu, str(gpu), JOB_COMMENT="power=250W")
            assert limits(node)[gpu] == (250 if event == "prolog" else 700)
        assert set(limits(node).values()) == {700}


def test_events_are_still_known_as_told_after_a_kill(node: Node) -> None:
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    assert post(node, "prolog", 2, "1", JOB_COMMENT="power=350W") == "applied"
    assert post(node, "epilog", 2, "1") == "applied"
    node.agent.kill()
    node.agent.start()
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "duplicate"
    assert post(node, "prolog", 2, "1", JOB_COMMENT="power=350W") == "late"
    assert limits(node) == {0: 250, 1: 700, 2: 700, 3: 700}


def test_there_is_one_agent_to_a_run_dir(node: Node) -> None:
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    second = node.wattkeeper("run", "--config", str(node.files.settings), check=False)
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    assert f"{node.files.run_dir}/lock: another agent is running (pid {node.agent.pid})" in second.stderr
    assert post(node, "prolog", 2, "1", JOB_COMMENT="power=350W") == "applied"  # the first one was not disturbed
    assert limits(node) == {0: 250, 1: 350, 2: 700, 3: 700}


def test_a_clean_stop_leaves_held_gpus_capped_and_frees_the_others(node: Node) -> None:
    node.write_policy(POLICY + "idle: {cap: 400W}\n")
    node.agent.reload()
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    wait_until(lambda: limits(node) == {0: 250, 1: 400, 2: 400, 3: 400}, TICK_S + 1, "all are capped", note=False)
    assert node.agent.stop() == 0
    assert limits(node) == {0: 250, 1: 700, 2: 700, 3: 700}
