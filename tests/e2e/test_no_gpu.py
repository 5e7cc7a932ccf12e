"""A node without a driver: the agent is ready, has nothing to do, and keeps nobody waiting."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.agents import hook_environment, limits, metric, plain_settings, post
from tests.lab import Lab, LabSpec, Node, wait_until
from tests.lab.agent import START_BOUND_S
from tests.lab.waiting import record
from wattkeeper.simulator.library import find_library

HOOK_BOUND_S = 0.05


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    """A node that Slurm believes to have GPUs, where no NVML library is installed."""
    with Lab(LabSpec(agents=False)) as lab:
        node = lab.node(1)
        settings = plain_settings(node)
        node.write_settings({**settings, "gpus": {"library": str(driver(node))}})
        start = time.monotonic()
        node.agent.start()
        record("an agent without a driver is ready", time.monotonic() - start, START_BOUND_S)
        yield lab


@pytest.fixture
def node(bare: Lab) -> Node:
    return bare.node(1)


def driver(node: Node) -> Path:
    return node.files.root / "driver.so.1"


def test_says_that_it_is_ready_and_has_no_gpus(node: Node) -> None:
    status = node.agent.get("/v1/status")
    assert status["gpus"] == []
    assert any("driver" in alarm for alarm in status["alarms"])
    (ready,) = [fields for _, fields in node.agent.notify.messages if fields.get("READY") == "1"]
    assert "0 GPUs" in ready["STATUS"]
    assert "Traceback" not in node.agent.log_text()
    assert node.wattkeeper("status").returncode == 0


def test_serves_its_metrics(node: Node) -> None:
    assert metric(node, "node_info", node="node1") == 1
    assert metric(node, "gpu_info") is None
    assert metric(node, "policy_last_reload_successful") == 1


def check_answered(node: Node, event: str, jobs: range, gpus: str | None) -> None:
    """At once, at least one of them: a loaded machine may delay any."""
    took = []
    for job in jobs:
        start = time.monotonic()
        status, _ = node.agent.post_event(event, hook_environment(job, gpus))
        took.append(time.monotonic() - start)
        assert status == 200
    what = "without GPUs" if gpus is None else "with GPUs"
    record(f"the {event} of a job {what} is answered where there is no driver", min(took), HOOK_BOUND_S)


def test_answers_hooks_at_once(node: Node) -> None:
    check_answered(node, "prolog", range(11, 14), None)
    check_answered(node, "epilog", range(11, 14), None)
    check_answered(node, "prolog", range(21, 24), "0")
    assert post(node, "prolog", 3, None) == "no_gpu"


def test_jobs_run(bare: Lab, node: Node) -> None:
    jobs = [bare.sbatch("true", *options) for options in ((), ("--gres=gpu:1",))]
    assert [bare.wait_done(job) for job in jobs] == ["COMPLETED", "COMPLETED"]
    wait_until(lambda: not node.spooled(), 2, "what a hook may have left is taken in", note=False)
    assert bare.node_states() == {"node1": "idle"}


def test_finds_the_gpus_once_there_is_a_driver(node: Node) -> None:
    driver(node).symlink_to(find_library())
    wait_until(lambda: len(node.agent.get("/v1/status")["gpus"]) == 4, 11, "GPUs of a driver that came late")
    assert post(node, "prolog", 4, JOB_COMMENT="power=250W") == "applied"
    assert limits(node) == {0: 250, 1: 700, 2: 700, 3: 700}
    wait_until(lambda: not node.agent.get("/v1/status")["alarms"], 2, "no alarm stays", note=False)
