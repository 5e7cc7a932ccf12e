"""The line that a job's owner reads: once, before anything else, in the batch script's output."""

from tests.e2e.walking import Gate, report, wait_limits
from tests.lab import Lab, wait_until


def test_the_user_is_told_once(quiet_lab: Lab) -> None:
    lab, node = quiet_lab, quiet_lab.node(1)
    steps = "echo begun; srun -n2 --overlap true; srun -n1 --overlap true; echo ended"
    job = lab.sbatch(steps, "-n2", "--gres=gpu:2", "--comment=power=250W", "-w", "node1")
    assert lab.wait_done(job) == "COMPLETED"
    message = "wattkeeper: GPUs 0,1 capped at 250 W each (you asked 250W; rule 'everyone' grants it)"
    assert lab.output(job).splitlines() == [message, "begun", "ended"]
    assert report(node, job)["message"] == message


def test_the_user_is_told_what_became_of_a_wish(quiet_lab: Lab) -> None:
    lab = quiet_lab
    wishes = {
        "power=9999W": "you asked 9999W; rule 'everyone' allows up to 700 W",
        "power=25OW": "you asked 25OW, which is malformed, as if nothing was asked; rule 'everyone'",
        "power=": "you asked power=, which is malformed, as if nothing was asked; rule 'everyone'",
        "power=\u202e052": "you asked \\u202e052, which is malformed, as if nothing was asked; rule 'everyone'",
        "nothing": "rule 'everyone'",
    }
    jobs = [lab.sbatch("echo ran", "--gres=gpu:1", "--comment", wish, "-w", "node2") for wish in wishes]
    for job, because in zip(jobs, wishes.values(), strict=True):
        assert lab.wait_done(job) == "COMPLETED"
        told, *rest = lab.output(job).splitlines()
        assert told.startswith("wattkeeper: GPU ")
        assert told.endswith(f" capped at 700 W ({because})")
        assert rest == ["ran"]


def test_nothing_is_said_into_the_output_of_steps(quiet_lab: Lab) -> None:
    """`x=$(srun ...)` holds what the step wrote and no more."""
    out = quiet_lab.srun("--gres=gpu:1", "--comment=power=250W", "-w", "node1", "echo", "only this")
    assert out == "only this\n"


def test_a_job_without_an_agent_runs_and_is_told_nothing(quiet_lab: Lab) -> None:
    lab, node = quiet_lab, quiet_lab.node(3)
    node.agent.kill()
    try:
        gate = Gate(lab, "untold")
        job = lab.sbatch(f"echo ran; {gate.wait}", "--gres=gpu:1", "--comment=power=250W", "-w", "node3")
        wait_until(lambda: lab.output(job), 10, "the job runs without an agent", note=False)
        assert lab.output(job) == "ran\n"
        assert set(node.limits_w().values()) == {700}
    finally:
        node.agent.start()
    wait_limits(node, 250, 700, 700, 700, what="a job that began without an agent is capped when one comes")
    gate.open()
    assert lab.wait_done(job) == "COMPLETED"
    wait_limits(node, 700, 700, 700, 700)
