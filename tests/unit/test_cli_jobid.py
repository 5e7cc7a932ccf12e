"""Job ids in Slurm's other forms: Slurm is asked once, and what it says is told."""

import os
import stat
from pathlib import Path

import pytest

from wattkeeper.cli import jobid
from wattkeeper.cli.jobid import raw_job_id
from wattkeeper.errors import WattkeeperError


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in whose text a test writes; every call is a line in ``calls``."""
    program = tmp_path / "scontrol"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return program


def says(program: Path, script: str) -> None:
    program.write_text(f'#!/bin/sh\necho "$@" >>"{program.parent}/calls"\n{script}\n')
    program.chmod(stat.S_IRWXU)


def test_a_number_needs_no_slurm(scontrol: Path) -> None:
    says(scontrol, "exit 1")
    assert raw_job_id("1234") == 1234
    assert not (scontrol.parent / "calls").exists()


@pytest.mark.parametrize("name", ["123_4", "123+1"])
def test_slurm_is_asked_once(scontrol: Path, name: str) -> None:
    says(scontrol, 'echo "JobId=127 ArrayJobId=123 ArrayTaskId=4 JobName=JobId=9 JobState=RUNNING Comment=JobId=8"')
    assert raw_job_id(name) == 127
    assert (scontrol.parent / "calls").read_text() == f"-o show job {name}\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'JobId=123 ArrayJobId=123 ArrayTaskId=2-9 JobState=PENDING'", "has not started: it is pending in Slurm"),
        ("echo 'Job 123_4 not found'; exit 1", "Slurm does not know it, or no longer; give the number"),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "Slurm does not know it, or no longer"),
        (
            "echo 'a'; echo 'scontrol: error: no munge' >&2; exit 1",
            "cannot be asked which job that is (no munge); give",
        ),
        ("exit 3", "scontrol ended with status 3); give the number that the job has by itself: sacct -j 123_4 -o job"),
        ("echo nonsense", "cannot be asked which job that is (nonsense)"),
    ],
)
def test_what_slurm_cannot_say_is_told_with_the_mend(scontrol: Path, script: str, said: str) -> None:
    says(scontrol, script)
    with pytest.raises(WattkeeperError) as raised:
        raw_job_id("123_4")
    assert str(raised.value).startswith("job 123_4: ")
    assert said in str(raised.value)


def test_a_slurmctld_that_hangs_is_not_waited_for(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobid, "TIMEOUT_S", 0.1)
    says(scontrol, "sleep 60")
    with pytest.raises(WattkeeperError, match=r"\(scontrol: no answer in 0\.1 s\)"):
        raw_job_id("123_4")


def test_where_slurm_is_not_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WattkeeperError, match=r"\(scontrol: No such file or directory\); give the number"):
        raw_job_id("123+1")
