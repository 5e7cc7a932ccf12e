"""The TaskProlog snippet: one line in the batch script, silence everywhere else."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.listener import Listener
from tests.lab.spec import REPO
from tests.lab.waiting import record, wait_until

SNIPPET = REPO / "deploy" / "slurm" / "taskprolog.sh"
BATCH = {"SLURM_JOB_ID": "12", "SLURM_JOB_GPUS": "0,1", "SLURM_PROCID": "0", "SLURM_NODEID": "0"}
LINE = b"wattkeeper: GPUs 0,1 capped at 250 W each (you asked 300 W; rule 'everyone' allows up to 250 W)"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed on this machine")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wk-task-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(params=[["dash"], ["bash", "--posix"]], ids=["dash", "bash"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    words: list[str] = request.param
    path = shutil.which(words[0])
    if path is None:
        pytest.skip(f"{words[0]} is not installed on this machine")
    return [path, *words[1:]]


def patient(snippet: Path, folder: Path) -> Path:
    """A copy that waits for its answer longer than 0.3 s: a busy machine is slow to give it."""
    text = snippet.read_text()
    assert text.count("--max-time 0.3 ") == 1
    copy = folder / snippet.name
    copy.write_text(text.replace("--max-time 0.3 ", "--max-time 20 "))
    copy.chmod(0o755)
    return copy


def run(
    shell: list[str], run_dir: Path, more: dict[str, str] | None = None, *, script: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    env = {**BATCH, "WATTKEEPER_RUN_DIR": str(run_dir), **(more or {})}
    return subprocess.run([*shell, str(script or patient(SNIPPET, run_dir))], env=env, capture_output=True, timeout=30)


def test_prints_the_line_in_the_batch_script(shell: list[str], run_dir: Path) -> None:
    with Listener(run_dir / "read.sock", body=LINE + b"\n") as agent:
        done = run(shell, run_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"print " + LINE + b"\n", b"")
    assert [(method, path) for method, path, *_ in agent.seen] == [("GET", "/v1/jobs/12/message")]


def test_a_release_that_numbers_the_batch_step_is_understood(shell: list[str], run_dir: Path) -> None:
    with Listener(run_dir / "read.sock", body=LINE):
        assert run(shell, run_dir, {"SLURM_STEP_ID": "4294967291"}).stdout == b"print " + LINE + b"\n"


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


def test_no_second_line_reaches_slurm(shell: list[str], run_dir: Path) -> None:
    """A line that begins with `export` would change the job's environment."""
    with Listener(run_dir / "read.sock", body=LINE + b"\nexport LD_PRELOAD=/evil\n"):
        assert run(shell, run_dir).stdout == b"print " + LINE + b"\n"


@pytest.mark.parametrize("inherited", [{}, {"SLURM_STEP_ID": "0"}, {"SLURM_STEP_ID": "4294967290"}])
@pytest.mark.parametrize(("step", "speaks"), [("12.batch", True), ("12.0", False), ("12.interactive", False)])
def test_the_title_of_slurmstepd_tells_the_step(
    shell: list[str], run_dir: Path, step: str, speaks: bool, inherited: dict[str, str]
) -> None:
    """`sbatch` called in a step passes SLURM_STEP_ID on to the batch script."""
    title = f"slurmstepd: [{step}]"
    with subprocess.Popen([title, "30"], executable=shutil.which("sleep")) as task:
        try:
            there = Path(f"/proc/{task.pid}/cmdline")
            wait_until(there.read_bytes, 1, "the title stands", note=False)  # it does a moment after exec
            with Listener(run_dir / "read.sock", body=LINE):
                done = run(shell, run_dir, {"SLURM_TASK_PID": str(task.pid), **inherited})
        finally:
            task.kill()
    assert done.stdout == (b"print " + LINE + b"\n" if speaks else b"")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("status", [204, 403, 404, 500])
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
    record(f"TaskProlog with a hung agent ({Path(shell[0]).name})", took, 0.4)


@pytest.mark.parametrize("how", [". {}", "{}"], ids=["sourced", "called"])
def test_goes_into_the_sites_own_task_prolog(shell: list[str], run_dir: Path, how: str) -> None:
    site = run_dir / "site"
    call = how.format(patient(SNIPPET, run_dir))
    site.write_text(f'set -eu\necho "export SITE=1"\n{call}\necho "print after ${{line-unset}}"\n')
    with Listener(run_dir / "read.sock", body=LINE):
        done = run(shell, run_dir, script=site)
    assert done.stdout == b"export SITE=1\nprint " + LINE + b"\nprint after unset\n"
    assert (done.returncode, done.stderr) == (0, b"")
    again = run(shell, run_dir, script=site)
    assert (again.returncode, again.stdout) == (0, b"export SITE=1\nprint after unset\n")
