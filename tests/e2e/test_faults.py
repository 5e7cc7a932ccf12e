"""Cards and drivers that fail, as the simulator makes them: one GPU's trouble stays its own, and what comes back is
capped again."""

import pytest

from tests.e2e.agents import (
    HOURS_MJ,
    TICK_S,
    gpu_status,
    let_ticks_pass,
    limits,
    metric,
    post,
    start_afresh,
    wait_limit,
)
from tests.lab import Lab, Node, wait_until
from wattkeeper.simulator import FaultKind, Instance
from wattkeeper.units import Milliwatts

REPAIR_S = TICK_S + 1
CAPPED = {0: 300, 1: 300, 2: 700, 3: 700}


@pytest.fixture
def node(one_agent: Lab) -> Node:
    """An agent with a job on GPUs 0 and 1, capped at 300 W."""
    node = one_agent.node(1)
    start_afresh(node)
    node.simulation.jump_counter("all", HOURS_MJ)  # so that a counter that began anew is surely behind
    assert post(node, "prolog", 1, "0,1", JOB_PARTITION="debug") == "applied"
    assert limits(node) == CAPPED
    return node


def wait_counted(node: Node) -> None:
    """A repair is counted when it is done, a little after the limit is right."""
    told = {"gpu": "0", "cause": "reset", "outcome": "repaired"}
    wait_until(lambda: metric(node, "drift_total", **told) == 1, REPAIR_S, "counted", note=False)


def set_up_again(node: Node, what: str) -> None:
    wait_until(lambda: limits(node) == CAPPED, REPAIR_S, what)


def test_a_hook_that_comes_right_after_a_reload_of_the_driver_finds_it_open(node: Node) -> None:
    node.simulation.driver_reload()
    assert post(node, "prolog", 2, "2", JOB_PARTITION="debug") == "applied"
    assert limits(node)[2] == 300
    wait_until(lambda: limits(node) == CAPPED | {2: 300}, REPAIR_S, "capped again after a reload of the driver")
    wait_counted(node)


def test_a_driver_that_is_gone_for_a_while(node: Node) -> None:
    node.simulation.fault("library", "no-driver")
    wait_until(lambda: "Driver Not Loaded" in (gpu_status(node)["error"] or ""), REPAIR_S, "the trouble is told")
    assert post(node, "prolog", 2, "2", JOB_PARTITION="debug") == "unsure"
    node.simulation.driver_reload()
    node.simulation.clear_fault("library")
    wait_until(lambda: limits(node) == CAPPED | {2: 300}, REPAIR_S, "capped when the driver is back")
    wait_until(lambda: gpu_status(node)["error"] is None, REPAIR_S, "the trouble is over", note=False)


@pytest.mark.parametrize("kind", ["unknown", "timeout", "irq", "lost", "reset-required"])
def test_one_gpu_that_answers_errors_takes_no_other_with_it(node: Node, kind: FaultKind) -> None:
    node.simulation.fault(0, kind)
    wait_until(lambda: gpu_status(node)["error"], REPAIR_S, f"{kind} is told")
    assert post(node, "prolog", 2, "2", JOB_PARTITION="debug") == "applied"
    assert limits(node)[2] == 300
    assert post(node, "epilog", 2, "2") == "applied"
    if kind in {"lost", "reset-required"}:
        node.simulation.reset_gpu(0)
    else:
        node.simulation.clear_fault(0)
    set_up_again(node, f"capped again after {kind}")
    wait_until(lambda: gpu_status(node)["error"] is None, REPAIR_S, f"{kind} is over")


def test_a_gpu_reset_brings_its_cap_back(node: Node) -> None:
    node.agent.pause()
    node.simulation.reset_gpu(0)
    assert limits(node)[0] == 700
    node.agent.resume()
    set_up_again(node, "capped again after a reset of the GPU")
    wait_counted(node)


def test_a_library_that_hangs_delays_the_caps_and_loses_none(node: Node) -> None:
    node.simulation.fault("library", "hang", lasting=2)
    assert post(node, "prolog", 2, "2", JOB_PARTITION="debug") in {"applied", "unsure"}
    wait_limit(node, 2, 300, 2 + REPAIR_S, "capped when the library answers again")
    let_ticks_pass(node)
    assert limits(node) == CAPPED | {2: 300}


def test_slow_calls_are_waited_for(node: Node) -> None:
    node.simulation.fault("all", "slow", 0.005)
    assert post(node, "prolog", 2, "2", JOB_PARTITION="debug") == "applied"
    assert limits(node)[2] == 300


def test_limits_that_went_with_the_last_client_are_set_again(node: Node) -> None:
    node.simulation.set_persistence("all", False)
    node.agent.kill()
    node.agent.actuator.kill()
    node.wattkeeper("restore", "--gpu", "3")  # a client that comes and goes: the driver forgets
    assert limits(node) == dict.fromkeys(range(4), 700)
    node.agent.start()
    set_up_again(node, "capped again by an agent that is back")
    assert gpu_status(node, 0)["baseline_w"] == 700


def test_a_tool_that_writes_again_and_again_loses_until_the_agent_yields(node: Node) -> None:
    node.simulation.set_limit(0, Milliwatts(500_000), every=2 * TICK_S)
    wait_until(lambda: metric(node, "drift_total", gpu="0", outcome="yielded") == 1, 10 * TICK_S, "the GPU is given up")
    node.simulation.forget_plans()
    assert limits(node)[1] == 300


def test_processes_and_mig_do_not_disturb_it(node: Node) -> None:
    node.simulation.set_mig(3, [Instance(slices=3, memory_mib=40_000), Instance(slices=4, memory_mib=40_000)])
    let_ticks_pass(node)
    wait_until(lambda: gpu_status(node, 3)["error"] is None, REPAIR_S, "no trouble with it", note=False)
    assert limits(node) == CAPPED
    node.simulation.set_mig(3, [])
