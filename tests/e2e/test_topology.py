"""Which device a job's GPU is: where Slurm, NVML and /dev count differently, and where they contradict each other."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.walking import Gate, by_minor, left_as_found, limits, report, wait_limits, wait_looks
from tests.lab import Lab, LabSpec, NodeSpec

SHUFFLED, UPPER, LACKING = 1, 2, 3
FORGED = ("9001", "9002")  # jobs of Prologs that no slurmd started


@pytest.fixture(scope="module")
def _odd_lab() -> Iterator[Lab]:
    nodes = (
        NodeSpec(nvml_order=(2, 0, 3, 1)),
        NodeSpec(minors=(2, 3), nvml_order=(1, 0, 3, 2)),
        NodeSpec(gpus=2, minors=(0, 5)),
    )
    with Lab(LabSpec(nodes=nodes)) as shared:
        yield shared


@pytest.fixture
def odd_lab(_odd_lab: Lab) -> Iterator[Lab]:
    """Nodes whose NVML counts otherwise, that give Slurm only nvidia2 and nvidia3, and whose gres.conf is wrong."""
    for lab in left_as_found(_odd_lab):
        yield lab
        held = {key for gpu in lab.node(SHUFFLED).agent.get("/v1/status")["gpus"] for key in gpu["holders"]}
        for job in held & {*FORGED}:  # of a test that failed: an Epilog of its own would forbid the Prolog to come
            end(lab, SHUFFLED, job)


def end(lab: Lab, number: int, job: str) -> int:
    """Posts the Epilog of a job that Slurm knows nothing of; the agent's HTTP status."""
    told = {"SLURM_JOB_ID": job, "SLURM_JOB_UID": "0", "SLURM_CLUSTER_NAME": "lab"}
    return lab.node(number).agent.post_event("epilog", "".join(f"{k}={v}\0" for k, v in told.items()).encode())[0]


def test_nvml_counts_otherwise_than_the_device_files(odd_lab: Lab) -> None:
    lab, node = odd_lab, odd_lab.node(SHUFFLED)
    assert {minor: gpu.index for minor, gpu in node.gpus().items()} != {n: n for n in range(4)}
    gates = [Gate(lab, "shuffled-1"), Gate(lab, "shuffled-2")]
    jobs = []
    for gate, power in zip(gates, (250, 350), strict=True):
        script = f'echo "own $SLURM_JOB_GPUS"; {lab.nvml}; {gate.wait}'
        jobs.append(lab.sbatch(script, "--gres=gpu:1", f"--comment=power={power}W", "-w", f"node{SHUFFLED}"))
        wait_looks(lab, jobs[-1])
    assert [lab.output(job).count(f"own {gpu}\n") for gpu, job in enumerate(jobs)] == [1, 1]
    assert by_minor(node, wait_looks(lab, jobs[1])[0]) == limits(250, 350, 700, 700)
    for gate, job in zip(gates, jobs, strict=True):
        gate.open()
        lab.wait_done(job)
    wait_limits(node, 700, 700, 700, 700)


def test_slurm_has_only_the_upper_gpus(odd_lab: Lab) -> None:
    """Slurm's GPUs 0 and 1 are nvidia2 and nvidia3."""
    lab, node = odd_lab, odd_lab.node(UPPER)
    gate = Gate(lab, "upper")
    script = f'echo "own $SLURM_JOB_GPUS"; {lab.nvml}; {gate.wait}'
    job = lab.sbatch(script, "--gres=gpu:1", "--comment=power=250W", "-w", f"node{UPPER}")
    assert by_minor(node, wait_looks(lab, job)[0]) == limits(700, 700, 250, 700)
    assert "own 0\n" in lab.output(job)
    other = lab.sbatch(lab.nvml, "--gres=gpu:1", "--comment=power=300W", "-w", f"node{UPPER}")
    assert by_minor(node, wait_looks(lab, other)[0]) == limits(700, 700, 250, 300)
    gate.open()
    lab.wait_done(job)
    lab.wait_done(other)
    wait_limits(node, 700, 700, 700, 700)
    assert [gpu["gpu"] for gpu in report(node, job)["gpus"]] == [2]
    assert [gpu["gpu"] for gpu in report(node, other)["gpus"]] == [3]


def test_gres_conf_names_a_gpu_that_the_driver_lacks(odd_lab: Lab) -> None:
    """The job runs, uncapped on all its GPUs; the node stays in service; log and status name the file."""
    lab, node = odd_lab, odd_lab.node(LACKING)
    assert any("nvidia5" in alarm for alarm in node.agent.get("/v1/status")["alarms"])
    job = lab.sbatch(lab.nvml, "--gres=gpu:2", "--comment=power=250W", "-w", f"node{LACKING}")
    assert by_minor(node, wait_looks(lab, job)[0]) == limits(700, 700)
    assert lab.wait_done(job) == "COMPLETED"
    assert lab.node_states()[f"node{LACKING}"] == "idle"
    [said] = [alarm for alarm in node.agent.get("/v1/status")["alarms"] if alarm.startswith(f"job {job}:")]
    for words in ("gres.conf", f"{node.files.devices}/nvidia5", "minor number 5", "nothing is written"):
        assert words in said
        assert words in node.agent.log_text()
    good = lab.sbatch(lab.nvml, "--gres=gpu:1", "--comment=power=250W", "-w", f"node{LACKING}")
    assert by_minor(node, wait_looks(lab, good)[0]) == limits(250, 700)
    lab.wait_done(good)


def prolog(lab: Lab, number: int, **told: str) -> subprocess.CompletedProcess[str]:
    """Runs the shipped Prolog as slurmd does, with an environment that this lab's Slurm would not make."""
    environment = {"SLURMD_NODENAME": f"node{number}", "SLURM_CLUSTER_NAME": "lab", **told}
    return subprocess.run(
        [lab.files.hooks / "prolog"], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_the_hook_names_uuids_that_contradict_its_numbers(odd_lab: Lab) -> None:
    lab, node = odd_lab, odd_lab.node(SHUFFLED)
    uuids = {gpu.minor: gpu.uuid for gpu in node.simulation.show().gpus}
    told = {"SLURM_JOB_ID": FORGED[0], "SLURM_JOB_UID": "0", "SLURM_JOB_GPUS": "0", "SLURM_JOB_COMMENT": "power=250W"}
    done = prolog(lab, SHUFFLED, **told, CUDA_VISIBLE_DEVICES=uuids[1])
    assert (done.returncode, done.stdout) == (0, "")
    assert not node.spooled()  # it was heard, and there is no point in telling it again
    assert node.limits_w() == limits(700, 700, 700, 700)
    [alarm] = [alarm for alarm in node.agent.get("/v1/status")["alarms"] if FORGED[0] in alarm]
    for words in ("SLURM_JOB_GPUS=0", uuids[0], "slurmd -G", "CUDA_VISIBLE_DEVICES", uuids[1], "nothing is written"):
        assert words in alarm
        assert words in node.agent.log_text()
    # The same job where both say the same: the alarm was about this and nothing else.
    done = prolog(lab, SHUFFLED, **told, CUDA_VISIBLE_DEVICES=uuids[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert node.limits_w() == limits(250, 700, 700, 700)
    assert end(lab, SHUFFLED, FORGED[0]) == 200
    wait_limits(node, 700, 700, 700, 700)
    assert node.agent.get("/v1/status")["alarms"] == []


@pytest.mark.parametrize(
    ("gpus", "words"), [("0,7", "lists only 4 GPUs"), ("GPU-no-such", "GPU-no-such"), ("0;1", "no list of GPUs")]
)
def test_a_gpu_that_nobody_knows(odd_lab: Lab, gpus: str, words: str) -> None:
    """Not even the part that could be placed is written."""
    lab, node = odd_lab, odd_lab.node(SHUFFLED)
    told = {"SLURM_JOB_ID": FORGED[1], "SLURM_JOB_UID": "0", "SLURM_JOB_GPUS": gpus, "SLURM_JOB_COMMENT": "power=250W"}
    assert prolog(lab, SHUFFLED, **told).returncode == 0
    assert node.limits_w() == limits(700, 700, 700, 700)
    [alarm] = [alarm for alarm in node.agent.get("/v1/status")["alarms"] if FORGED[1] in alarm]
    assert words in alarm


def test_the_setting_gpus_map_overrides_what_slurm_says(odd_lab: Lab) -> None:
    """Slurm's GPU 1 of the node with the wrong gres.conf is, says the admin, GPU 1."""
    lab, node = odd_lab, odd_lab.node(LACKING)
    before = node.settings
    node.write_settings({**before, "gpus": {"map": {"0": 0, "1": 1}}})
    node.agent.restart()
    try:
        job = lab.sbatch(lab.nvml, "--gres=gpu:2", "--comment=power=250W", "-w", f"node{LACKING}")
        assert by_minor(node, wait_looks(lab, job)[0]) == limits(250, 250)
        lab.wait_done(job)
        wait_limits(node, 700, 700)
    finally:
        node.write_settings(before)
        node.agent.restart()
