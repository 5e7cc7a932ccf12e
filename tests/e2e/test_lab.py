"""The lab itself: it comes up, shows jobs their node's GPUs, and leaves nothing behind."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import PLAIN, SHARDS, UPPER
from tests.lab import Lab, LabSpec, NodeSpec, wait_until
from tests.lab.keeper import alive, members
from tests.lab.slurm import Rpcs
from tests.lab.spec import REPO
from tests.lab.waiting import record


def test_comes_up(bare_lab: Lab) -> None:
    assert bare_lab.node_states() == {"node1": "idle", "node2": "idle", "node3": "idle"}
    record("a lab of three nodes comes up", bare_lab.came_up_s, 1)


def test_a_job_sees_the_gpus_of_its_node(bare_lab: Lab) -> None:
    for number in (PLAIN, UPPER):
        job = bare_lab.sbatch(bare_lab.nvml, "--gres=gpu:1", "-w", f"node{number}")
        assert bare_lab.wait_done(job) == "COMPLETED"
        seen = {row["minor"]: row["uuid"] for row in json.loads(bare_lab.output(job))}
        assert seen == {gpu.minor: gpu.uuid for gpu in bare_lab.node(number).simulation.show().gpus}
    assert not {gpu.uuid for gpu in bare_lab.node(PLAIN).gpus().values()} & set(seen.values())


def test_nodes_are_made_as_asked(bare_lab: Lab) -> None:
    gpus = bare_lab.node(UPPER).gpus()
    assert {minor: gpu.index for minor, gpu in gpus.items()} == {0: 1, 1: 0, 2: 3, 3: 2}
    assert set(bare_lab.node(UPPER).limits_w().values()) == {600}
    assert "Gres=gpu:h100:2\n" in bare_lab.scontrol("show", "node", "node3")
    assert "Gres=gpu:h100:4,shard:" in bare_lab.scontrol("show", "node", f"node{SHARDS}")


def test_jobs_outlive_a_restart_of_slurmctld(bare_lab: Lab) -> None:
    job = bare_lab.sbatch("sleep 60", "--gres=gpu:1")
    bare_lab.wait_running(job)
    bare_lab.stop_slurmctld()
    assert not bare_lab.slurmctld_answers()
    bare_lab.start_slurmctld()
    assert bare_lab.state(job) == "RUNNING"


def test_counts_the_messages_slurmctld_gets(bare_lab: Lab) -> None:
    before = bare_lab.sdiag()
    bare_lab.squeue()

    def came() -> Rpcs:
        return bare_lab.sdiag() - before

    wait_until(
        lambda: "REQUEST_JOB_INFO" in came().by_type, 2, "it is counted", note=False
    )  # which it is once answered
    after = came()
    assert after.asked["REQUEST_JOB_INFO"] == 1
    assert sum(after.by_user.values()) >= 2


def test_prometheus_looks_at_every_agent() -> None:
    with Lab(LabSpec(nodes=(NodeSpec(gpus=1),) * 2, agents=False, prometheus=True)) as lab:
        assert lab.prometheus is not None
        prometheus = lab.prometheus
        wait_until(lambda: prometheus.targets() == {"node1": "down", "node2": "down"}, 7, "Prometheus misses agents")
        up = {labels["node"]: value for labels, value in prometheus.query("up")}
        assert up == {"node1": 0, "node2": 0}


def test_leaves_nothing_behind() -> None:
    with Lab(LabSpec(agents=False)) as lab:
        root = lab.files.root
        job = lab.sbatch("setsid sleep 300 & sleep 300", "--gres=gpu:1", "--export=NONE")
        lab.wait_running(job)
        wait_until(lambda: len([pid for pid in lab.members() if command(pid) == "sleep"]) >= 2, 5, "the job runs")
        running = lab.members()
    assert not root.exists()
    assert [pid for pid in running if alive(pid)] == []


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_ends_with_its_owner() -> None:
    """The owner is killed without a chance to clean up."""
    script = (
        "import time\nfrom tests.lab import Lab, LabSpec\n"
        "lab = Lab(LabSpec(agents=False)).up()\n"
        "job = lab.sbatch('sleep 300', '--gres=gpu:1')\nlab.wait_running(job)\n"
        "print(lab.files.root, lab.keeper.pid, flush=True)\ntime.sleep(300)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        words = owner.stdout.readline().split()
        root, keeper = Path(words[0]), int(words[1])
        try:  # munged, slurmctld, slurmd, slurmstepd, sleep
            wait_until(lambda: len(members(root)) >= 5, 3, "all of a lab's processes are there")
        finally:
            owner.send_signal(signal.SIGKILL)
            owner.wait()
    wait_until(lambda: not members(root) and not root.exists() and not alive(keeper), 3, "an orphaned lab is gone")
