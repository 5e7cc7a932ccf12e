"""From processes to jobs, on folders that look like /proc, and on processes of our own."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from wattkeeper.model import GpuUuid, Holding, JobFacts, JobKey, Sharing
from wattkeeper.privileged.evidence import evidence_of
from wattkeeper.slurm.processes import MOST_REMEMBERED, Processes

V1 = "4:memory:/slurm/uid_1000/job_7/step_0/task_0\n3:freezer:/slurm/uid_1000/job_7/step_0\n1:name=systemd:/\n"
V1_BY_NODE = "2:devices:/slurm_node1/uid_1000/job_7/step_batch\n"
V2 = "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n"
NESTED = "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0/slurm/job_99\n"
OF_A_SESSION = "0::/user.slice/user-1000.slice/user@1000.service/slurm/job_7\n"
ALIKE = "0::/system.slice/job_7.service\n0::/jobs/job_7\n"
ME = os.getuid()


def of(proc: Path) -> Processes:
    return Processes(partial(evidence_of, proc=proc), proc)


def place(proc: Path, pid: int, cgroup: str = "0::/\n", environment: bytes = b"", start: int = 5) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stat").write_text(f"{pid} (a ) (b) S " + " ".join("0" for _ in range(18)) + f" {start} 0 0\n")
    (folder / "cgroup").write_text(cgroup)
    (folder / "status").write_text(f"Name:\ta\nUid:\t{ME}\t0\t0\t0\n")
    (folder / "environ").write_bytes(environment)


def gone(proc: Path, pid: int) -> None:
    for file in (proc / str(pid)).iterdir():
        file.unlink()
    (proc / str(pid)).rmdir()


def holding(job_id: int, uid: int = ME) -> Holding:
    return Holding(JobFacts(JobKey("c", job_id, "r0"), uid), GpuUuid("GPU-0"), Sharing.SHARED, 0.0, 0.0)


@pytest.mark.parametrize(
    ("cgroup", "job"),
    [(V1, 7), (V1_BY_NODE, 7), (V2, 7), (NESTED, 7), (OF_A_SESSION, None), (ALIKE, None), ("", None)],
)
def test_slurms_cgroup_names_the_job(tmp_path: Path, cgroup: str, job: int | None) -> None:
    place(tmp_path, 10, cgroup)
    assert of(tmp_path).job_of(10, {7: ME, 99: ME}) == job


def test_an_environment_is_believed_of_the_jobs_own_user_alone(tmp_path: Path) -> None:
    place(tmp_path, 10, environment=b"A=1\0SLURM_JOB_ID=7\0")
    assert of(tmp_path).job_of(10, {7: ME}) == 7
    assert of(tmp_path).job_of(10, {7: ME + 1}) is None
    assert of(tmp_path).job_of(10, {}) is None


def test_a_cgroup_counts_before_an_environment(tmp_path: Path) -> None:
    place(tmp_path, 10, V2, b"SLURM_JOB_ID=8\0")
    assert of(tmp_path).job_of(10, {7: ME, 8: ME}) == 7


@pytest.mark.parametrize("value", [b"", b"7x", b"-7", b"1" * 5000, "\u0667".encode(), b"\xff"])
def test_a_job_id_that_is_none_is_nobodys(tmp_path: Path, value: bytes) -> None:
    place(tmp_path, 10, environment=b"SLURM_JOB_ID=" + value + b"\0")
    assert of(tmp_path).job_of(10, {7: ME}) is None


def test_a_process_that_has_ended_is_still_known_and_its_number_may_come_again(tmp_path: Path) -> None:
    processes = of(tmp_path)
    place(tmp_path, 10, V2)
    assert processes.job_of(10, {}) == 7
    gone(tmp_path, 10)
    assert processes.job_of(10, {}) == 7
    place(tmp_path, 10, V2.replace("job_7", "job_8"), start=6)
    assert processes.job_of(10, {}) == 8
    assert processes.job_of(11, {}) is None


def test_what_is_remembered_has_a_bound(tmp_path: Path) -> None:
    processes = of(tmp_path)
    for pid in range(1, MOST_REMEMBERED + 20):
        place(tmp_path, pid, V2)
        processes.job_of(pid, {})
        gone(tmp_path, pid)
    assert processes.job_of(1, {}) is None
    assert processes.job_of(MOST_REMEMBERED + 19, {}) == 7


def test_a_process_of_this_machine() -> None:
    command = [sys.executable, "-c", "print(flush=True); input()"]
    environment = {"SLURM_JOB_ID": "7"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        child.stdout.readline()
        processes = Processes(evidence_of)
        assert processes.job_of(child.pid, {7: ME}) == 7
        child.communicate(b"\n")
    assert processes.job_of(child.pid, {7: ME}) == 7


def test_holders_weigh_what_their_processes_use(tmp_path: Path) -> None:
    for pid, job in ((10, 7), (11, 7), (12, 8)):
        place(tmp_path, pid, V2.replace("job_7", f"job_{job}"))
    weights = of(tmp_path).weigh({10: 50, 11: 40, 12: 10}, [holding(7), holding(8)])
    assert weights is not None
    assert weights[holding(7).job.key] == 9 * weights[holding(8).job.key]


def test_what_is_no_holders_counts_for_each_alike(tmp_path: Path) -> None:
    place(tmp_path, 10, V2)
    place(tmp_path, 13, V2.replace("job_7", "job_99"))
    weights = of(tmp_path).weigh({10: 40, 13: 30, 14: 30}, [holding(7), holding(8)])
    assert weights is not None
    assert weights[holding(7).job.key] / sum(weights.values()) == pytest.approx(0.7)


def test_where_nobody_is_known_nothing_is(tmp_path: Path) -> None:
    assert of(tmp_path).weigh({10: 40}, [holding(7), holding(8)]) is None
    place(tmp_path, 10, V2)
    assert of(tmp_path).weigh({10: 0}, [holding(7), holding(8)]) is None
