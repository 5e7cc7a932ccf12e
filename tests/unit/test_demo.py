"""The demo, end to end, as somebody runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.keeper import alive
from tests.lab.waiting import wait_until

from build_simulator import refresh_in_tree
from wattkeeper.cli.demo.jobs import JOBS, POLICY
from wattkeeper.config.policy import parse_policies
from wattkeeper.shipped import shipped

DEMO = [sys.executable, "-m", "wattkeeper.cli.main", "demo"]


@pytest.fixture(autouse=True)
def _library() -> None:
    refresh_in_tree()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a unix socket's may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="wk") as path:
        yield Path(path)


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def test_its_policy_is_fine() -> None:
    _, warnings = parse_policies([("policy.yaml", POLICY)])
    assert not [str(warning) for warning in warnings]


def test_hooks_are_found() -> None:
    assert shipped("deploy/slurm/prolog.d/50-wattkeeper").is_file()


def test_every_job_gets_what_its_tale_says(folder: Path) -> None:
    done = subprocess.run([*DEMO, "--seconds", "6", "--json"], capture_output=True, text=True, env=environment(folder))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is True
    jobs = {job["job_id"]: job for job in told["jobs"]}
    assert {job_id: (job["outcome"], job["gpus"][0]["cap_w"]) for job_id, job in jobs.items()} == {
        101: ("granted", 300.0),
        102: ("clamped", 280.0),
        103: ("denied", 350.0),
        104: ("malformed", 700.0),
        105: ("none", 525.0),
        106: ("granted", 350.0),
        107: ("granted", 420.0),
    }
    complaints = [line for line in done.stderr.splitlines() if "hook:" in line]
    late = [re.search(r"epilog: job (\d+): the agent did not answer within", line) for line in complaints]
    assert all(late), complaints  # a busy machine may be late, and then nobody knows what a short job drew
    measured = jobs.keys() - {int(found[1]) for found in late if found}
    assert all(gpu["energy_j"] > 10 for job_id in measured for gpu in jobs[job_id]["gpus"])
    assert jobs[106]["ended_at"] == pytest.approx(jobs[107]["started_at"], abs=0.5)
    assert [gpu["limit_w"] for gpu in told["gpus"]] == [700.0] * 4
    assert not list(folder.iterdir())


def test_plain_output_ends_with_a_table(folder: Path) -> None:
    done = subprocess.run([*DEMO, "--seconds", "4"], capture_output=True, text=True, env=environment(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wattkeeper demo: ")
    assert all(f"job {job.job_id} starts on" in done.stdout for job in JOBS)
    assert "all 4 GPUs are back at their baseline, 700 W." in done.stdout.splitlines()[-1]


def test_interrupted_it_leaves_nothing(folder: Path) -> None:
    with subprocess.Popen([*DEMO, "--seconds", "60"], stdout=subprocess.PIPE, env=environment(folder)) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if b"agent ready (pid " in line:
                break
        agent = int(line.split(b"pid ")[1].split(b")")[0])
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(20) == 130
    assert not list(folder.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(agent, 0)


def test_kept_it_goes_on(folder: Path) -> None:
    env = environment(folder)
    done = subprocess.run([*DEMO, "--seconds", "4", "--keep"], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout
    (home,) = folder.iterdir()
    agent = int((home / "run" / "lock").read_text())
    assert f"kill {agent} && rm -r {home}" in done.stdout
    look = [sys.executable, "-m", "wattkeeper.cli.main", "status", "--json", "--run-dir", str(home / "run")]
    seen = subprocess.run(look, capture_output=True, text=True, env=env)
    assert len(json.loads(seen.stdout)["gpus"]) == 4
    os.kill(agent, signal.SIGTERM)
    wait_until(lambda: not alive(agent), 7, "the agent that was kept has ended", note=False)
