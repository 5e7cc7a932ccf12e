"""Limits that somebody else changes: repaired, told of, given up, or left alone, as the site and its admins say."""

from typing import Any

import pytest

from tests.e2e.agents import (
    HOURS_MJ,
    TICK_S,
    gpu_status,
    let_ticks_pass,
    limits,
    metric,
    post,
    set_behind,
    start_afresh,
    wait_limit,
)
from tests.lab import Lab, Node, wait_until

REPAIR_S = TICK_S + 1
WRITER = {"gpu": "0", "cause": "writer"}


@pytest.fixture
def node(one_agent: Lab) -> Node:
    """An agent with a job on GPU 0, capped at 300 W."""
    node = one_agent.node(1)
    start_afresh(node)
    cap(node)
    return node


def cap(node: Node) -> None:
    assert post(node, "prolog", 1, JOB_PARTITION="debug") == "applied"


def again(node: Node, **settings: Any) -> None:
    """The agent with other settings, and the job on GPU 0."""
    start_afresh(node, **settings)
    cap(node)


def lose(node: Node, times: int) -> None:
    """Another writer sets a limit, and again each time it has been repaired."""
    for number in range(times):
        set_behind(node, 0, 500 + number)
        wait_limit(node, 0, 300, REPAIR_S, "drift is repaired")


def test_is_repaired_and_counted(node: Node) -> None:
    node.wattkeeper("sim", "set", "0", "--state", str(node.files.simulation), "--limit", "500W")
    wait_limit(node, 0, 300, REPAIR_S, "drift is repaired")
    wait_until(lambda: metric(node, "drift_total", outcome="repaired", **WRITER) == 1, REPAIR_S, "counted", note=False)
    assert metric(node, "drift_total") == 1
    assert metric(node, "cap_writes_total", cause="drift") == 1
    assert "gpu=0 limit is 500 W, we set 300 W: cause=writer, repaired" in node.agent.log_text()


def test_a_limit_that_was_lowered_is_drift_too(node: Node) -> None:
    set_behind(node, 0, 250)
    wait_limit(node, 0, 300, REPAIR_S, "drift is repaired")


def test_whoever_writes_a_fourth_time_is_let_have_it(node: Node) -> None:
    lose(node, 3)
    assert metric(node, "gpu_drift_yielded", gpu="0") == 0
    set_behind(node, 0, 555)
    wait_until(lambda: metric(node, "gpu_drift_yielded", gpu="0") == 1, REPAIR_S, "a GPU is given up")
    let_ticks_pass(node)
    assert limits(node)[0] == 555
    assert metric(node, "drift_total", outcome="repaired", **WRITER) == 3
    assert metric(node, "drift_total", outcome="yielded", **WRITER) == 1
    assert gpu_status(node)["yielded"] is True
    node.wattkeeper("resume", "--gpu", "0")
    wait_limit(node, 0, 300, REPAIR_S, "capped again after resume")
    assert metric(node, "gpu_drift_yielded", gpu="0") == 0


def test_a_new_job_is_a_new_start(node: Node) -> None:
    lose(node, 3)
    set_behind(node, 0, 555)
    wait_until(lambda: gpu_status(node)["yielded"], REPAIR_S, "a GPU is given up")
    assert post(node, "prolog", 2, JOB_PARTITION="debug") == "applied"
    assert limits(node)[0] == 300
    lose(node, 1)


def test_a_gpu_on_hold_is_left_alone(node: Node) -> None:
    done = node.wattkeeper("hold", "--gpu", "0", "--for", "1h", "--reason", "burn-in test")
    assert "GPU 0: 300 W: held" in done.stdout
    set_behind(node, 0, 500)
    assert post(node, "prolog", 2, "0,1", JOB_PARTITION="debug") == "applied"
    let_ticks_pass(node)
    assert limits(node) == {0: 500, 1: 300, 2: 700, 3: 700}
    assert gpu_status(node)["hold"]["reason"] == "burn-in test"
    assert not metric(node, "drift_total")
    node.agent.kill()
    node.agent.start()
    let_ticks_pass(node, 1)
    assert limits(node)[0] == 500  # a hold outlives the agent
    node.wattkeeper("resume", "--gpu", "0")
    wait_limit(node, 0, 300, REPAIR_S, "capped again after resume")
    assert gpu_status(node)["hold"] is None


def test_a_hold_ends_by_itself(node: Node) -> None:
    node.wattkeeper("hold", "--gpu", "0", "--for", "5s", "--reason", "some seconds' work")
    set_behind(node, 0, 500)
    let_ticks_pass(node)
    assert limits(node)[0] == 500
    wait_limit(node, 0, 300, 5 + REPAIR_S, "capped again after a hold of 5 s")


def test_restore_gives_back_until_resume(node: Node) -> None:
    node.wattkeeper("restore", "--gpu", "0")
    assert limits(node)[0] == 700
    let_ticks_pass(node)
    assert limits(node)[0] == 700
    node.wattkeeper("resume")
    wait_limit(node, 0, 300, REPAIR_S, "capped again after resume")


def test_a_gpu_that_is_not_ours_is_left_alone(node: Node) -> None:
    """Somebody lowers an idle GPU which the agent has not written: none of its business."""
    set_behind(node, 3, 400)
    let_ticks_pass(node)
    assert limits(node)[3] == 400
    assert not metric(node, "drift_total")
    assert gpu_status(node, 3)["ours"] is False


def test_a_gpu_that_was_given_back_is_left_alone(node: Node) -> None:
    assert post(node, "epilog", 1) == "applied"
    let_ticks_pass(node, 1)
    assert limits(node)[0] == 700
    set_behind(node, 0, 400)
    let_ticks_pass(node)
    assert limits(node)[0] == 400
    assert not metric(node, "drift_total")


def test_a_site_may_want_reports_alone(node: Node) -> None:
    again(node, drift="report")
    set_behind(node, 0, 500)
    wait_until(lambda: metric(node, "drift_total", outcome="reported", **WRITER) == 1, REPAIR_S, "drift is reported")
    let_ticks_pass(node)
    assert limits(node)[0] == 500
    assert metric(node, "drift_total") == 1  # told of once, not at every tick
    set_behind(node, 0, 510)
    wait_until(lambda: metric(node, "drift_total", outcome="reported", **WRITER) == 2, REPAIR_S, "drift is reported")
    assert limits(node)[0] == 510
    assert post(node, "epilog", 1) == "applied"
    assert limits(node)[0] == 700


def test_a_site_may_want_to_yield_at_once(node: Node) -> None:
    again(node, drift="yield")
    set_behind(node, 0, 500)
    wait_until(lambda: metric(node, "gpu_drift_yielded", gpu="0") == 1, REPAIR_S, "a GPU is given up")
    assert limits(node)[0] == 500


def test_a_driver_that_was_loaded_anew_is_no_writer(node: Node) -> None:
    node.simulation.jump_counter(0, HOURS_MJ)  # so that a counter that began anew is surely behind
    let_ticks_pass(node, 1)
    node.agent.pause()
    node.simulation.driver_reload()
    assert limits(node)[0] == 700
    node.agent.resume()
    wait_limit(node, 0, 300, REPAIR_S, "capped again after a reload of the driver")
    wait_until(lambda: metric(node, "drift_total"), REPAIR_S, "counted", note=False)
    assert metric(node, "drift_total", gpu="0", cause="reset", outcome="repaired") == 1
    assert not metric(node, "drift_total", cause="writer")
    assert gpu_status(node)["baseline_w"] == 700


def test_observe_decides_and_writes_nothing(node: Node) -> None:
    start_afresh(node, mode="observe")
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    set_behind(node, 1, 400)
    let_ticks_pass(node)
    assert limits(node) == {0: 700, 1: 400, 2: 700, 3: 700}
    assert gpu_status(node)["target_w"] == 250
    assert metric(node, "gpu_power_limit_target_watts", gpu="0") == 250
    assert metric(node, "gpu_power_limit_watts", gpu="0") == 700
    job = node.agent.get("/v1/jobs/1")
    assert job["gpus"][0]["observe"] is True
    assert job["gpus"][0]["steps"][-1]["cap_w"] == 250
    assert "only observed, not written" in job["message"]
    assert not metric(node, "cap_writes_total")
    assert metric(node, "agent_info", mode="observe") == 1
    assert post(node, "epilog", 1) == "applied"
    assert limits(node)[0] == 700


def test_a_change_to_observe_gives_back_what_we_had_capped(node: Node) -> None:
    node.write_settings({**node.settings, "mode": "observe"})
    node.agent.reload()
    wait_limit(node, 0, 700, REPAIR_S, "given back on the way to observe")
    assert gpu_status(node)["target_w"] == 300
