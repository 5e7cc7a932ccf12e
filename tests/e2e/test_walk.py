"""The walk: from `sbatch --comment="power=250W"` to a cap that the job itself reads, and back to the baseline."""

from tests.e2e.walking import BASELINE_W, Gate, by_minor, limits, report, wait_limits, wait_looks
from tests.lab import Lab, wait_until


def test_a_job_gets_the_power_it_asks_for_and_gives_it_back(quiet_lab: Lab) -> None:
    """Another NVML client, in the job's first line, reads the cap on the job's GPUs and on no other."""
    lab, node = quiet_lab, quiet_lab.node(1)
    assert node.limits_w() == limits(*[BASELINE_W] * 4)
    gate = Gate(lab, "walk")
    job = lab.sbatch(f"{lab.nvml}; {gate.wait}", "--gres=gpu:2", "--comment", "power=250W", "-w", "node1")
    first = by_minor(node, wait_looks(lab, job)[0])
    assert first == limits(250, 250, BASELINE_W, BASELINE_W)
    said = report(node, job)
    assert (said["asked"], said["outcome"]) == ("250W", "granted")
    assert [(gpu["gpu"], gpu["cap_w"]) for gpu in said["gpus"]] == [(0, 250), (1, 250)]
    assert lab.node(2).limits_w() == lab.node(3).limits_w() == limits(*[BASELINE_W] * 4)
    gate.open()
    assert lab.wait_done(job) == "COMPLETED"
    wait_limits(node, *[BASELINE_W] * 4, what="a job's GPUs are back at their baseline after its Epilog")
    wait_until(lambda: report(node, job)["ended_at"], 2, "its end is told", note=False)


def test_the_agent_dies_while_a_capped_job_runs(quiet_lab: Lab) -> None:
    """The cap outlives the agent; the Epilog can do nothing; the agent comes back and puts the GPUs right."""
    lab, node = quiet_lab, quiet_lab.node(1)
    gate = Gate(lab, "dies")
    job = lab.sbatch(f"{lab.nvml}; {gate.wait}; {lab.nvml}", "--gres=gpu:2", "--comment", "power=250W", "-w", "node1")
    wait_looks(lab, job)
    node.agent.kill()
    node.files.command.chmod(0o600)  # the Epilog cannot give the GPUs back itself: what follows is the agent's doing
    try:
        gate.open()
        assert lab.wait_done(job) == "COMPLETED"
        last = by_minor(node, wait_looks(lab, job, 2)[1])
        assert last == limits(250, 250, BASELINE_W, BASELINE_W)
        assert [(event.event, event.job) for event in node.spooled()] == [("epilog", job)]
        assert node.limits_w() == limits(250, 250, BASELINE_W, BASELINE_W)
    finally:
        node.files.command.chmod(0o755)
        node.agent.start(wait=False)
    wait_limits(node, *[BASELINE_W] * 4, what="baseline after the agent is back from SIGKILL")
    node.agent.wait_ready()
    wait_until(lambda: not node.spooled(), 2, "the Epilog is taken from the spool", note=False)
    assert report(node, job)["ended_at"] is not None
    assert {gpu["gpu"]: gpu["holders"] for gpu in node.agent.get("/v1/status")["gpus"]} == {n: [] for n in range(4)}


def test_the_agent_is_away_only_for_a_while(quiet_lab: Lab) -> None:
    """Killed and back while the job runs: the job keeps its cap throughout, and gives it back as if nothing was."""
    lab, node = quiet_lab, quiet_lab.node(1)
    gate = Gate(lab, "while")
    job = lab.sbatch(f"{lab.nvml}; {gate.wait}; {lab.nvml}", "--gres=gpu:1", "--comment", "power=300W", "-w", "node1")
    wait_looks(lab, job)
    node.agent.kill()
    node.agent.start()
    held = {gpu["gpu"]: gpu["target_w"] for gpu in node.agent.get("/v1/status")["gpus"]}
    assert held == limits(300, BASELINE_W, BASELINE_W, BASELINE_W)
    gate.open()
    assert lab.wait_done(job) == "COMPLETED"
    assert by_minor(node, wait_looks(lab, job, 2)[1]) == limits(300, BASELINE_W, BASELINE_W, BASELINE_W)
    wait_limits(node, *[BASELINE_W] * 4)
