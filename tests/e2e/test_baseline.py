"""A GPU whose limit somebody had lowered before us: that is its baseline, and it never gets more."""

import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.agents import TICK_S, gpu_status, let_ticks_pass, limits, one_node, post, start_afresh, wait_limit
from tests.lab import Lab, Node, NodeSpec, wait_until

FOUND_W = 500  # of 700


@pytest.fixture(scope="module")
def _lowered() -> Iterator[Lab]:
    with one_node(NodeSpec(gpus=2, initial_limit_w=FOUND_W)) as lab:
        yield lab


@pytest.fixture
def lowered(_lowered: Lab) -> Lab:
    start_afresh(_lowered.node(1))
    return _lowered


@pytest.fixture
def node(lowered: Lab) -> Node:
    return lowered.node(1)


def policy(cap: str, idle: str) -> str:
    rule = f"  - {{name: all, cap: {cap}, requests: {{min: min, max: max}}}}\n"
    return f"version: 1\ncaps:\n{rule}idle: {{cap: {idle}}}\n"


def test_goes_back_to_what_was_found(node: Node) -> None:
    node.write_policy(policy("60%", "baseline"))
    node.agent.reload()
    assert post(node, "prolog", 1) == "applied"
    assert limits(node) == {0: 420, 1: FOUND_W}  # percent of the default, 700 W
    assert post(node, "epilog", 1) == "applied"
    assert limits(node) == {0: FOUND_W, 1: FOUND_W}
    assert gpu_status(node)["ours"] is False


@pytest.mark.parametrize("cap", ["baseline", "default", "max", "100%"])
def test_is_never_raised_above_it(node: Node, cap: str) -> None:
    """Neither by a rule, nor by a request, nor once the GPU is idle."""
    node.write_policy(policy(cap, cap))
    node.agent.reload()
    seen = [limits(node)[0]]
    for job, comment in ((1, ""), (2, "power=max"), (3, "power=300W"), (4, "power=default")):
        assert post(node, "prolog", job, JOB_COMMENT=comment) == "applied"
        seen.append(limits(node)[0])
        assert post(node, "epilog", job) == "applied"
        seen.append(limits(node)[0])
    let_ticks_pass(node)
    seen.append(limits(node)[0])
    assert seen == [*[FOUND_W] * 5, 300, *[FOUND_W] * 4]


def test_an_idle_cap_below_it_is_taken_back(node: Node) -> None:
    node.write_policy(policy("baseline", "400W"))
    node.agent.reload()
    assert limits(node) == {0: 400, 1: 400}
    assert post(node, "prolog", 1) == "applied"
    assert limits(node) == {0: FOUND_W, 1: 400}
    assert post(node, "epilog", 1) == "applied"
    node.write_policy(policy("baseline", "baseline"))
    node.agent.reload()
    assert limits(node) == {0: FOUND_W, 1: FOUND_W}


def test_is_still_known_when_the_state_is_lost_while_a_job_runs(lowered: Lab, node: Node) -> None:
    job = lowered.sbatch("echo begun; sleep 60", "--gres=gpu:1", "-p", "debug")
    wait_until(lambda: "begun" in lowered.output(job), 20, "the job has a process", note=False)
    assert limits(node)[0] == 300
    node.agent.kill()
    shutil.rmtree(node.files.state_dir)
    node.agent.start()
    assert gpu_status(node)["baseline_w"] == FOUND_W
    let_ticks_pass(node)
    assert limits(node) == {0: 300, 1: FOUND_W}
    assert gpu_status(node)["holders"] == [str(job)]
    lowered.scancel(job)
    wait_limit(node, 0, FOUND_W, 5 + TICK_S, "back at the baseline after the job")
