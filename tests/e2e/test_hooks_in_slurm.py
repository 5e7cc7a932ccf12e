"""What slurmd really gives the shipped hooks, and what they make of it.

Where a test states a fact of Slurm rather than of Wattkeeper, it stands on this machine's release: see
docs/decisions/what-slurms-hooks-know.md for what follows from each.
"""

import os
import re
import signal
import time

import pytest

from tests.e2e.conftest import PLAIN, SHARDS, UPPER
from tests.lab import Lab, wait_until
from tests.lab.listener import Listener
from tests.lab.node import SpooledEvent
from tests.lab.processes import run
from tests.lab.slurm import Rpcs
from tests.lab.spec import REPO

FIXTURES = REPO / "tests" / "fixtures"
RUNTIME = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_STDOUT")


def heard(lab: Lab, before: Rpcs) -> dict[str, int]:
    """What slurmctld was asked since then, by type, without what nodes and sdiag itself bring about."""
    return (lab.sdiag() - before).asked


def events(lab: Lab, node: int, *expected: str, bound_s: float = 10) -> list[SpooledEvent]:
    """The node's spooled events, once there are as many as expected; they must be the expected ones."""
    enough = len(expected)
    wait_until(lambda: len(lab.node(node).spooled()) >= enough, bound_s, f"spooled: {expected}", note=False)
    found = lab.node(node).spooled()
    assert [event.event for event in found] == list(expected)
    return found


def test_the_prolog_runs_before_the_job_and_the_epilog_after(bare_lab: Lab) -> None:
    job = bare_lab.sbatch("cat /proc/uptime; sleep 0.1; cat /proc/uptime", "--gres=gpu:2", "-w", "node1")
    bare_lab.wait_done(job)
    prolog, epilog = events(bare_lab, PLAIN, "prolog", "epilog")
    first, last = (float(line.split()[0]) for line in bare_lab.output(job).splitlines())
    at = [float(event.path.name.partition("-")[0]) for event in (prolog, epilog)]
    assert at[0] <= first < last <= at[1]
    assert prolog.job == epilog.job == job


def test_what_the_prolog_is_told(bare_lab: Lab) -> None:
    comment = "power=250W\nSLURM_JOB_GPUS=7"
    job = bare_lab.sbatch("true", "--gres=gpu:2", "-w", "node1", "-C", "h100", "--comment", comment)
    bare_lab.wait_done(job)
    prolog, _ = events(bare_lab, PLAIN, "prolog", "epilog")
    told = {
        "SLURM_JOB_GPUS": "0,1",
        "SLURM_JOB_COMMENT": comment,
        "SLURM_JOB_UID": str(os.getuid()),
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_CONSTRAINTS": "h100",
        "SLURM_JOB_RESTART_COUNT": "0",
        "SLURM_CLUSTER_NAME": "lab",
        "SLURMD_NODENAME": "node1",
        "SLURM_SCRIPT_CONTEXT": "prolog_slurmd",
    }
    assert {key: prolog.env.get(key) for key in told} == told
    assert not {"SLURM_JOB_QOS", "SLURM_JOB_NAME", "SLURM_JOB_ACCOUNT", "PATH", "HOME"} & set(prolog.env)


def test_gpus_are_counted_from_zero_whatever_their_files(bare_lab: Lab) -> None:
    """SLURM_JOB_GPUS is an index into the node's GRES, here nvidia2 and nvidia3."""
    job = bare_lab.sbatch("true", "--gres=gpu:2", "-w", f"node{UPPER}")
    bare_lab.wait_done(job)
    assert events(bare_lab, UPPER, "prolog", "epilog")[0].env["SLURM_JOB_GPUS"] == "0,1"


def test_a_job_on_shards_cannot_be_told_from_one_on_a_gpu(bare_lab: Lab) -> None:
    seen = []
    for gres in ("shard:1", "gpu:1"):
        bare_lab.node(SHARDS).clear_spool()
        job = bare_lab.sbatch("env", f"--gres={gres}", "-w", f"node{SHARDS}")
        bare_lab.wait_done(job)
        prolog = events(bare_lab, SHARDS, "prolog", "epilog")[0].env
        seen.append({key: value for key, value in prolog.items() if key not in RUNTIME})
        assert ("SLURM_SHARDS_ON_NODE" in bare_lab.output(job)) == gres.startswith("shard")
    assert seen[0] == seen[1]
    assert seen[0]["SLURM_JOB_GPUS"] == "0"


def test_two_jobs_may_hold_one_gpu(bare_lab: Lab) -> None:
    jobs = [bare_lab.sbatch("sleep 60", "--gres=shard:1", "-w", f"node{SHARDS}") for _ in range(2)]
    for job in jobs:
        bare_lab.wait_running(job)
    assert [event.env["SLURM_JOB_GPUS"] for event in events(bare_lab, SHARDS, "prolog", "prolog")] == ["0", "0"]


def test_the_epilog_of_a_requeued_job_counts_the_restart_already(bare_lab: Lab) -> None:
    job = bare_lab.sbatch("sleep 60", "--gres=gpu:1", "-w", "node1", "--requeue")
    bare_lab.wait_running(job)
    bare_lab.requeue(job)
    first, between = events(bare_lab, PLAIN, "prolog", "epilog")
    assert (first.env["SLURM_JOB_RESTART_COUNT"], between.env["SLURM_JOB_RESTART_COUNT"]) == ("0", "1")
    # A requeued job waits two minutes for its turn, unless it is told to come at once. At once is two seconds later:
    # slurmd still revokes what it was given for the job in the second of its end.
    wait_until(lambda: bare_lab.state(job) == "PENDING", 5, "requeued", note=False)
    time.sleep(2)
    bare_lab.scontrol("update", f"JobId={job}", "EligibleTime=now")
    bare_lab.wait_running(job)
    again = events(bare_lab, PLAIN, "prolog", "epilog", "prolog")[-1]
    assert (again.job, again.env["SLURM_JOB_RESTART_COUNT"]) == (job, "1")


def test_right_after_a_restart_of_slurmctld_the_epilog_has_no_gpus(bare_lab: Lab) -> None:
    """Until a node has registered again slurmctld does not know which GPUs a job has there."""
    slurmd = bare_lab.node(PLAIN).slurmd
    job = bare_lab.sbatch("echo begun; sleep 60", "--gres=gpu:2", "-w", "node1")
    wait_until(lambda: "begun" in bare_lab.output(job), 10, "the script has begun", note=False)
    slurmd.signal(signal.SIGSTOP)  # so that it registers only after scancel
    try:
        bare_lab.stop_slurmctld()
        bare_lab.start_slurmctld()
        bare_lab.scancel(job)
    finally:
        slurmd.signal(signal.SIGCONT)
    prolog, epilog = events(bare_lab, PLAIN, "prolog", "epilog")
    assert prolog.env["SLURM_JOB_GPUS"] == "0,1"
    assert epilog.job == job
    assert "SLURM_JOB_GPUS" not in epilog.env


def test_a_killed_slurmd_still_runs_the_epilog(bare_lab: Lab) -> None:
    node = bare_lab.node(PLAIN)
    job = bare_lab.sbatch("echo begun; sleep 5", "--gres=gpu:2", "-w", "node1")
    wait_until(lambda: "begun" in bare_lab.output(job), 10, "the script has begun", note=False)
    node.slurmd.kill()
    node.slurmd.start()
    bare_lab.wait_done(job)
    _, epilog = events(bare_lab, PLAIN, "prolog", "epilog")
    assert epilog.env["SLURM_JOB_GPUS"] == "0,1"


def test_tasks_of_an_array_and_parts_of_a_het_job_have_ids_of_their_own(bare_lab: Lab) -> None:
    array = bare_lab.sbatch("true", "--gres=gpu:1", "-w", "node1", "--array=0-2")
    wait_until(lambda: len(bare_lab.node(PLAIN).spooled()) >= 6, 10, "three tasks began and ended", note=False)
    of_job: dict[int, list[str]] = {}
    for event in bare_lab.node(PLAIN).spooled():  # one task may have ended before another begins
        of_job.setdefault(event.job, []).append(event.event)
    assert array in of_job
    assert list(of_job.values()) == [["prolog", "epilog"]] * 3
    bare_lab.node(PLAIN).clear_spool()
    job = bare_lab.sbatch("true", "--gres=gpu:1", "-w", "node1", ":", "--gres=gpu:2", "-w", "node3")
    parts = [events(bare_lab, node, "prolog", "epilog")[0] for node in (PLAIN, UPPER)]
    assert [part.job for part in parts] == [job, job + 1]
    assert [part.env["SLURM_HET_JOB_ID"] for part in parts] == [str(job)] * 2
    assert [part.env["SLURM_JOB_GPUS"] for part in parts] == ["0", "0,1"]


def test_every_node_of_a_job_runs_the_prolog_at_its_start(bare_lab: Lab) -> None:
    job = bare_lab.sbatch("sleep 30", "--gres=gpu:1", "-w", "node[1,3]", "-N2")
    bare_lab.wait_running(job)
    assert {events(bare_lab, node, "prolog")[0].job for node in (PLAIN, UPPER)} == {job}


def test_a_job_without_gpus_leaves_the_prolog_out(bare_lab: Lab) -> None:
    job = bare_lab.sbatch("true", "-w", "node1")
    bare_lab.wait_done(job)
    assert events(bare_lab, PLAIN, "epilog")[0].job == job


def test_a_job_waits_for_the_agents_answer(bare_lab: Lab) -> None:
    with Listener(bare_lab.node(PLAIN).files.run_dir / "events.sock", delay_s=0.7) as agent:
        start = time.monotonic()
        bare_lab.srun("--gres=gpu:1", "-w", "node1", "true")
        took = time.monotonic() - start
        wait_until(lambda: len(agent.seen) == 2, 5, "the agent heard of start and end", note=False)
    assert took >= 0.7
    assert [path for _, path, *_ in agent.seen] == ["/v1/events/prolog", "/v1/events/epilog"]


def test_strict_requeues_the_job_and_drains_the_node(bare_lab: Lab) -> None:
    with Listener(bare_lab.node(PLAIN).files.run_dir / "events.sock", 409, b"GPU 0: not permitted\n"):
        job = bare_lab.sbatch("true", "--gres=gpu:1", "-w", "node1")
        wait_until(
            lambda: bare_lab.node_states().get("node1", "").startswith("drain"), 10, "the node is drained", note=False
        )
    wait_until(lambda: bare_lab.state(job) == "PENDING", 10, "the job is requeued", note=False)
    assert "refused: GPU 0: not permitted" in bare_lab.node(PLAIN).slurmd.text()
    bare_lab.cancel_all()
    bare_lab.scontrol("update", "NodeName=node1", "State=RESUME")
    bare_lab.wait_idle()


@pytest.mark.parametrize("nested", [False, True], ids=["by a user", "by a step"])
def test_the_user_is_told_once_in_the_batch_script(bare_lab: Lab, nested: bool) -> None:
    body = b"wattkeeper: GPUs 0,1 capped at 250 W each\n"
    steps = "echo begun; srun -n2 --overlap true; srun -n1 --overlap true; echo ended"
    with Listener(bare_lab.node(PLAIN).files.run_dir / "read.sock", body=body) as agent:
        options = ("-n2", "--gres=gpu:2", "-w", "node1")
        if nested:  # the environment then holds the SLURM_STEP_ID of another job
            out = bare_lab.files.out / "nested.out"
            words = ("sbatch", "--wait", f"--output={out}", *options, "--wrap", steps)
            bare_lab.srun("--gres=gpu:0", "-w", "node3", *words, env={"SLURM_JOB_NAME": "outer"})
            output = out.read_text()
        else:
            job = bare_lab.sbatch(steps, *options)
            bare_lab.wait_done(job)
            output = bare_lab.output(job)
    assert output.splitlines() == [body.decode().strip(), "begun", "ended"]
    assert len(agent.seen) == 1


def test_slurmd_lists_its_gpus_without_asking_anybody(bare_lab: Lab) -> None:
    """`slurmd -G` writes to standard error; its lines are in GRES order, its Index is the number in the file's name."""
    before = bare_lab.sdiag()
    for number, name in ((PLAIN, "plain"), (SHARDS, "shards"), (UPPER, "minors-2-3")):
        done = run(["slurmd", "-G", "-N", f"node{number}"], bare_lab.env)
        text = done.stderr.replace(str(bare_lab.node(number).files.devices), "/dev")
        kept = (FIXTURES / "slurm-22.05" / f"slurmd-G.{name}.stderr").read_text()
        assert done.stdout == ""
        assert re.sub(r"slurmd-node\d", "slurmd", text) == re.sub(r"slurmd-node\d", "slurmd", kept)
    assert heard(bare_lab, before) == {}


def test_a_nodes_processes_are_listed_without_asking_anybody(bare_lab: Lab) -> None:
    """`scontrol listpids '*' NODE` asks the node's slurmstepds, not slurmctld, and not slurmd either."""
    job = bare_lab.sbatch("sleep 30", "--gres=gpu:1", "-w", f"node{UPPER}")
    bare_lab.wait_running(job)
    listed = ["scontrol", "listpids", "*", f"node{UPPER}"]

    def batch() -> list[list[str]]:
        lines = run(listed, bare_lab.env, check=False).stdout.splitlines()[1:]
        return [line.split() for line in lines if " batch " in line]

    wait_until(lambda: len(batch()) == 2, 5, "the job's processes are listed", note=False)
    before = bare_lab.sdiag()
    rows = [line.split() for line in run(listed, bare_lab.env).stdout.splitlines()]
    assert heard(bare_lab, before) == {}
    assert rows[0] == ["PID", "JOBID", "STEPID", "LOCALID", "GLOBALID"]
    assert {row[1] for row in rows[1:]} == {str(job)}
    assert ["-1", str(job), "extern", "0", "0"] in rows
    nobody = run(["scontrol", "listpids", "*", f"node{PLAIN}"], bare_lab.env, check=False)
    assert (nobody.returncode, nobody.stderr) == (1, "No job steps exist on this node.\n")
