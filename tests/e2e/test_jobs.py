"""Every way in which Slurm starts and ends a job: each gets its own cap, from its first line, and gives it back."""

import re
import time
from collections.abc import Iterator

import pytest

from tests.e2e.walking import (
    BASELINE_W,
    Gate,
    by_minor,
    left_as_found,
    limits,
    looks,
    report,
    wait_limits,
    wait_looks,
)
from tests.lab import Lab, LabSpec, Node, NodeSpec, wait_until
from tests.lab.processes import run

ALL_BASELINE = [BASELINE_W] * 4


def own(lab: Lab, job: int) -> tuple[Node, list[int]]:
    """The node of a job, and its GPUs there by minor number (here the same as Slurm's count)."""
    found = re.search(r"Nodes=(\S+) .*?GRES=gpu:\w+:\d+\(IDX:([0-9,-]+)\)", lab.scontrol("-d", "show", "job", str(job)))
    assert found, "slurmctld names the job's GPUs"
    spans = [span.partition("-") for span in found[2].split(",")]
    return lab.nodes[found[1]], [gpu for low, _, high in spans for gpu in range(int(low), int(high or low) + 1)]


def test_srun(quiet_lab: Lab) -> None:
    node = quiet_lab.node(2)
    out = quiet_lab.srun("--gres=gpu:2", "--comment=power=250W", "-w", "node2", quiet_lab.nvml)
    assert by_minor(node, looks(out)[0]) == limits(250, 250, BASELINE_W, BASELINE_W)
    wait_limits(node, *ALL_BASELINE)


def test_salloc(quiet_lab: Lab) -> None:
    node = quiet_lab.node(2)
    words = ["salloc", "--gres=gpu:1", "--comment=power=300W", "-w", "node2", "srun", quiet_lab.nvml]
    done = run(words, quiet_lab.env)
    assert by_minor(node, looks(done.stdout)[0]) == limits(300, BASELINE_W, BASELINE_W, BASELINE_W)
    wait_limits(node, *ALL_BASELINE)


def test_an_array_of_twenty(quiet_lab: Lab) -> None:
    """Twenty tasks on twelve GPUs: each reads its cap on its own GPU, and every GPU is given back."""
    lab = quiet_lab
    script = f'echo "own $SLURM_JOB_ID $SLURMD_NODENAME $SLURM_JOB_GPUS"; {lab.nvml}'
    options = ("--gres=gpu:1", "--comment=power=350W", "--array=1-20", f"--output={lab.files.out}/array-%a.out")
    job = lab.sbatch(script, *options)
    seen = {}
    for task in range(1, 21):
        look = wait_looks(lab, f"array-{task}")[0]
        told = re.search(r"^own (\d+) (\w+) (\d)$", lab.output(f"array-{task}"), re.MULTILINE)
        assert told
        node = lab.nodes[told[2]]
        assert by_minor(node, look)[int(told[3])] == 350
        seen[int(told[1])] = node
    assert len(seen) == 20
    assert job in seen
    wait_until(lambda: not lab.squeue("-h").strip(), 15, "the array has ended", note=False)
    for node in lab.nodes.values():
        wait_limits(node, *ALL_BASELINE)
    assert {report(node, task)["outcome"] for task, node in seen.items()} == {"granted"}


def test_the_parts_of_a_het_job_ask_for_different_power(quiet_lab: Lab) -> None:
    lab = quiet_lab
    script = f"srun --het-group=0 {lab.nvml}; srun --het-group=1 {lab.nvml}"
    job = lab.sbatch_het(
        script,
        ("--gres=gpu:1", "--comment=power=250W", "-w", "node1"),
        ("--gres=gpu:3", "--comment=power=400W", "-w", "node2"),
    )
    first, second = wait_looks(lab, job, 2)
    assert by_minor(lab.node(1), first) == limits(250, BASELINE_W, BASELINE_W, BASELINE_W)
    assert by_minor(lab.node(2), second) == limits(400, 400, 400, BASELINE_W)
    lab.wait_done(job)
    for number in (1, 2):
        wait_limits(lab.node(number), *ALL_BASELINE)


def test_a_job_on_three_nodes_is_capped_on_each(quiet_lab: Lab) -> None:
    lab = quiet_lab
    options = ("--gres=gpu:2", "--comment=power=450W", "-N3", "--ntasks-per-node=1")
    job = lab.sbatch(f"srun --label {lab.nvml} | sort | cut -d ' ' -f 2-", *options)
    seen = wait_looks(lab, job, 3)
    for number, look in enumerate(seen, start=1):
        assert by_minor(lab.node(number), look) == limits(450, 450, BASELINE_W, BASELINE_W)
    lab.wait_done(job)
    for node in lab.nodes.values():
        wait_limits(node, *ALL_BASELINE)


def test_a_requeued_job_is_capped_again_and_an_old_epilog_does_not_end_it(quiet_lab: Lab) -> None:
    lab, node = quiet_lab, quiet_lab.node(1)
    gate = Gate(lab, "requeued")
    script = f"{lab.nvml}; {gate.wait}; {lab.nvml}"
    job = lab.sbatch(script, "--gres=gpu:2", "--comment=power=250W", "-w", "node1", "--requeue", "--open-mode=append")
    wait_looks(lab, job)
    lab.requeue(job)
    wait_until(lambda: lab.state(job) == "PENDING", 5, "requeued", note=False)
    wait_limits(node, *ALL_BASELINE)
    between = time.clock_gettime(time.CLOCK_BOOTTIME)
    # At once is two seconds later: slurmd still revokes what it was given for the job in the second of its end.
    time.sleep(2)
    lab.scontrol("update", f"JobId={job}", "EligibleTime=now")
    assert by_minor(node, wait_looks(lab, job, 2)[1]) == limits(250, 250, BASELINE_W, BASELINE_W)
    assert report(node, job)["run"] == "r1"
    # The Epilog of run 0, as Slurm sends it (it counts the restart already) but late, and as it should be.
    told = {"SLURM_JOB_ID": job, "SLURM_JOB_UID": 0, "SLURM_CLUSTER_NAME": "lab", "SLURMD_NODENAME": "node1"}
    late = "".join(f"{key}={value}\0" for key, value in (told | {"SLURM_JOB_RESTART_COUNT": 1}).items())
    name = f"{between:012.2f}-1.epilog"
    unfinished = node.files.run_dir / "spool" / f".{name}.tmp"
    unfinished.write_text(late)
    unfinished.rename(unfinished.with_name(name))
    wait_until(lambda: not node.spooled(), 2, "a late Epilog is taken from the spool", note=False)
    early = "".join(f"{key}={value}\0" for key, value in (told | {"SLURM_JOB_RESTART_COUNT": 0}).items())
    assert node.agent.post_event("epilog", early.encode())[0] == 200
    assert report(node, job)["ended_at"] is None
    gate.open()
    assert by_minor(node, wait_looks(lab, job, 3)[2]) == limits(250, 250, BASELINE_W, BASELINE_W)
    assert lab.wait_done(job) == "COMPLETED"
    wait_limits(node, *ALL_BASELINE)


def test_a_cancelled_job_gives_its_gpus_back(quiet_lab: Lab) -> None:
    lab, node = quiet_lab, quiet_lab.node(3)
    job = lab.sbatch(f"{lab.nvml}; sleep 300", "--gres=gpu:4", "--comment=power=200W", "-w", "node3")
    assert by_minor(node, wait_looks(lab, job)[0]) == limits(200, 200, 200, 200)
    lab.scancel(job)
    assert lab.wait_done(job) == "CANCELLED"
    wait_limits(node, *ALL_BASELINE, what="a cancelled job's GPUs are back at their baseline")


def test_a_job_keeps_its_cap_when_a_step_dies(quiet_lab: Lab) -> None:
    lab, node = quiet_lab, quiet_lab.node(3)
    script = f"srun sh -c 'kill -9 $$' && echo survived; {lab.nvml}; exit 3"
    job = lab.sbatch(script, "--gres=gpu:1", "--comment=power=250W", "-w", "node3")
    assert by_minor(node, wait_looks(lab, job)[0]) == limits(250, BASELINE_W, BASELINE_W, BASELINE_W)
    assert lab.wait_done(job) == "FAILED"
    assert "survived" not in lab.output(job)
    wait_limits(node, *ALL_BASELINE)


def test_two_jobs_side_by_side_get_each_their_own(quiet_lab: Lab) -> None:
    lab, node = quiet_lab, quiet_lab.node(2)
    gates = [Gate(lab, "side-1"), Gate(lab, "side-2")]
    jobs = []
    for gate, power in zip(gates, (250, 400), strict=True):
        options = ("--gres=gpu:2", f"--comment=power={power}W", "-w", "node2")
        jobs.append(lab.sbatch(f"{lab.nvml}; {gate.wait}", *options))
        wait_looks(lab, jobs[-1])
    assert [own(lab, job) for job in jobs] == [(node, [0, 1]), (node, [2, 3])]
    assert by_minor(node, wait_looks(lab, jobs[1])[0]) == limits(250, 250, 400, 400)
    gates[0].open()
    lab.wait_done(jobs[0])
    wait_limits(node, BASELINE_W, BASELINE_W, 400, 400)
    gates[1].open()
    lab.wait_done(jobs[1])
    wait_limits(node, *ALL_BASELINE)


def test_a_job_without_gpus_changes_nothing(quiet_lab: Lab) -> None:
    lab, node = quiet_lab, quiet_lab.node(2)
    job = lab.sbatch(lab.nvml, "--comment=power=250W", "-w", "node2")
    assert by_minor(node, wait_looks(lab, job)[0]) == limits(*ALL_BASELINE)
    assert lab.wait_done(job) == "COMPLETED"


@pytest.fixture(scope="module")
def _shards() -> Iterator[Lab]:
    with Lab(LabSpec(nodes=(NodeSpec(gpus=2, shards=8),))) as shared:
        yield shared


@pytest.fixture
def shards(_shards: Lab) -> Iterator[Lab]:
    yield from left_as_found(_shards)


def test_shards_of_one_gpu_get_the_highest_cap_of_their_jobs(shards: Lab) -> None:
    lab, node = shards, shards.node(1)
    gates, jobs = [Gate(lab, "shard-1"), Gate(lab, "shard-2")], []
    for gate, power in zip(gates, (400, 300), strict=True):
        jobs.append(lab.sbatch(f"{lab.nvml}; {gate.wait}", "--gres=shard:1", f"--comment=power={power}W"))
        wait_looks(lab, jobs[-1])
    assert [by_minor(node, wait_looks(lab, job)[0]) for job in jobs] == [limits(400, 700)] * 2
    holders = {gpu["gpu"]: len(gpu["holders"]) for gpu in node.agent.get("/v1/status")["gpus"]}
    assert holders == {0: 2, 1: 0}
    said = [report(node, job) for job in jobs]
    assert [(job["asked"], job["outcome"]) for job in said] == [("400W", "granted"), ("300W", "granted")]
    assert [[gpu["cap_w"] for gpu in job["gpus"]] for job in said] == [[400], [400]]
    gates[0].open()
    lab.wait_done(jobs[0])
    wait_limits(node, 300, 700, what="the cap of the job that is left on a shared GPU")
    gates[1].open()
    lab.wait_done(jobs[1])
    wait_limits(node, 700, 700)


def test_a_shard_that_joins_raises_the_limit_of_the_gpu(shards: Lab) -> None:
    lab, node = shards, shards.node(1)
    gate = Gate(lab, "joins")
    first = lab.sbatch(f"{lab.nvml}; {gate.wait}", "--gres=shard:1", "--comment=power=250W")
    assert by_minor(node, wait_looks(lab, first)[0]) == limits(250, 700)
    second = lab.sbatch(f"{lab.nvml}", "--gres=shard:1", "--comment=power=350W")
    assert by_minor(node, wait_looks(lab, second)[0]) == limits(350, 700)
    lab.wait_done(second)
    wait_limits(node, 250, 700)
    gate.open()
    lab.wait_done(first)
    wait_limits(node, 700, 700)
