"""An agent that no hook told of a job finds it by its processes (`scontrol listpids`, /proc/PID/environ)."""

from collections.abc import Iterator

import pytest

from tests.e2e.walking import Gate, limits, report, wait_limits
from tests.lab import Lab, LabSpec, NodeSpec, wait_until

POLICY = """\
version: 1
caps:
  - {name: everyone, cap: 60%, requests: {min: min, max: baseline}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabSpec(nodes=(NodeSpec(gpus=2),), agents=True, policy=POLICY)) as built:
        yield built


@pytest.mark.e2e
def test_a_job_whose_prolog_left_no_trace_gets_the_rules_cap(lab: Lab) -> None:
    node = lab.node(1)
    first = lab.sbatch("true", "--gres=gpu:1")  # by which the baseline of GPU 0 is known
    assert lab.wait_done(first) == "COMPLETED"
    wait_limits(node, 700, 700)
    node.agent.kill()
    gate = Gate(lab, "look")
    job = lab.sbatch(f"echo begun; {gate.wait}", "--gres=gpu:2", "--comment", "power=250W")
    wait_until(lambda: "begun" in lab.output(job), 20, "the job has a process", note=False)  # RUNNING comes before
    assert node.spooled(), "the Prolog left its event"
    node.clear_spool()
    node.agent.start()
    wait_limits(node, 420, 700, what="a job found by its processes is capped, where the baseline is known")
    said = report(node, job)
    assert said["run"] == "seen"
    assert said["gpus"][0]["pending"] == ["comment"]
    assert "baseline is not known" in said["gpus"][1]["steps"][-1]["text"]
    gate.open()
    assert lab.wait_done(job) == "COMPLETED"
    wait_limits(node, 700, 700)
    held = {gpu["gpu"]: gpu["holders"] for gpu in node.agent.get("/v1/status")["gpus"]}
    assert held == {0: [], 1: []}
    assert node.limits_w() == limits(700, 700)
