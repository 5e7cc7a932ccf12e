"""The TaskEpilog snippet: one line when the batch script has ended, silence everywhere else."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from tests.lab.listener import Listener
from tests.lab.spec import REPO
from tests.lab.waiting import record
from tests.unit.test_hooks_taskprolog import BATCH, patient, run_dir, shell

__all__ = ["run_dir", "shell"]  # fixtures

SNIPPET = REPO / "deploy" / "slurm" / "taskepilog.sh"
LINE = b"wattkeeper: job 12 used 1.20 kWh (GPUs 0,1: mean 310 W each, held back by the cap 12 % of the time)"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed on this machine")


def run(
    shell: list[str],
    run_dir: Path,
    more: dict[str, str] | None = None,
    *,
    script: Path | None = None,
    title: str | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Runs the snippet; with a title, as a child of a process of that name, as slurmstepd starts it."""
    env = {**BATCH, "WATTKEEPER_RUN_DIR": str(run_dir), **(more or {})}
    script = script or patient(SNIPPET, run_dir)
    if title is None:
        return subprocess.run([*shell, str(script)], env=env, capture_output=True, timeout=30)
    parent = [title, "-c", '"$@"; exit $?', title, *shell, str(script)]
    return subprocess.run(parent, executable=shutil.which("dash"), env=env, capture_output=True, timeout=30)


def test_prints_the_line_on_standard_error(shell: list[str], run_dir: Path) -> None:
    """Slurm drops what a TaskEpilog writes to its standard output."""
    with Listener(run_dir / "read.sock", body=LINE + b"\n") as agent:
        done = run(shell, run_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", LINE + b"\n")
    assert [(method, path) for method, path, *_ in agent.seen] == [("GET", "/v1/jobs/12/line")]


@pytest.mark.parametrize(
    "more",
    [
        {"SLURM_STEP_ID": "0"},
        {"SLURM_STEP_ID": "7", "SLURM_PROCID": "1"},
        {"SLURM_PROCID": "1"},
        {"SLURM_JOB_GPUS": ""},
    ],
)
def test_is_silent_in_steps_and_in_jobs_without_gpus(shell: list[str], run_dir: Path, more: dict[str, str]) -> None:
    with Listener(run_dir / "read.sock", body=LINE) as agent:
        done = run(shell, run_dir, more)
    assert (done.returncode, done.stdout, done.stderr, agent.seen) == (0, b"", b"", [])


@pytest.mark.skipif(shutil.which("dash") is None, reason="dash is not installed on this machine")
@pytest.mark.parametrize("inherited", [{}, {"SLURM_STEP_ID": "0"}, {"SLURM_STEP_ID": "4294967290"}])
@pytest.mark.parametrize(("step", "speaks"), [("12.batch", True), ("12.0", False), ("12.interactive", False)])
@pytest.mark.parametrize("called", [False, True], ids=["itself", "called"])
def test_the_title_of_slurmstepd_tells_the_step(
    shell: list[str], run_dir: Path, step: str, speaks: bool, inherited: dict[str, str], called: bool
) -> None:
    """`sbatch` called in a step passes SLURM_STEP_ID on. A site's own TaskEpilog stands between slurmstepd and us."""
    script = patient(SNIPPET, run_dir)
    if called:
        script = run_dir / "site (its own) taskepilog"
        script.write_text(f"{patient(SNIPPET, run_dir)}\nexit 0\n")
    with Listener(run_dir / "read.sock", body=LINE):
        done = run(shell, run_dir, inherited, script=script, title=f"slurmstepd: [{step}]")
    assert done.stderr == (LINE + b"\n" if speaks else b"")
    assert (done.returncode, done.stdout) == (0, b"")


def test_no_second_line_is_printed(shell: list[str], run_dir: Path) -> None:
    with Listener(run_dir / "read.sock", body=LINE + b"\nmore\n"):
        assert run(shell, run_dir).stderr == LINE + b"\n"


@pytest.mark.parametrize("status", [204, 403, 404, 500, 503])
def test_is_silent_where_there_is_no_answer(shell: list[str], run_dir: Path, status: int) -> None:
    body = b"" if status == 204 else b"no such job"
    with Listener(run_dir / "read.sock", status, body):
        done = run(shell, run_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_is_silent_without_an_agent(shell: list[str], run_dir: Path) -> None:
    for _ in range(2):
        done = run(shell, run_dir)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        with socket.socket(socket.AF_UNIX) as dead:
            if not (run_dir / "read.sock").exists():
                dead.bind(str(run_dir / "read.sock"))


def test_a_hung_agent_costs_the_job_no_more_than_its_deadline(shell: list[str], run_dir: Path) -> None:
    with Listener(run_dir / "read.sock", delay_s=30):
        start = time.monotonic()
        done = run(shell, run_dir, script=SNIPPET)
        took = time.monotonic() - start
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    record(f"TaskEpilog with a hung agent ({Path(shell[0]).name})", took, 0.4)


@pytest.mark.parametrize("how", [". {}", "{}"], ids=["sourced", "called"])
def test_goes_into_the_sites_own_task_epilog(shell: list[str], run_dir: Path, how: str) -> None:
    site = run_dir / "site"
    site.write_text(f'set -eu\n{how.format(patient(SNIPPET, run_dir))}\necho "after ${{line-unset}}" >&2\n')
    with Listener(run_dir / "read.sock", body=LINE):
        done = run(shell, run_dir, script=site)
    assert (done.returncode, done.stderr) == (0, LINE + b"\nafter unset\n")
    again = run(shell, run_dir, script=site)
    assert (again.returncode, again.stderr) == (0, b"after unset\n")
