"""The last line of a job's output, as the shipped TaskEpilog writes it; and jobs that the agent has forgotten."""

import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.agents import POLICY, TICK_S, let_ticks_pass, post, start_afresh
from tests.e2e.test_other_users import NOBODY, seen_by_nobody
from tests.e2e.walking import Gate, report
from tests.lab import Lab, LabSpec, Node, NodeSpec, wait_until
from tests.lab.config import patient, user
from tests.lab.processes import run
from tests.lab.spec import REPO
from tests.lab.waiting import record

SNIPPET = REPO / "deploy" / "slurm" / "taskepilog.sh"
LINE = re.compile(
    r"wattkeeper: job (?P<job>\d+) used (?P<energy>[\d.]+ k?J)"
    r" \(GPUs? (?P<gpus>[\d,]+): (?:mean (?P<mean>\d+) W(?: each)?, )?held back by the cap \d+ % of the time\)"
)
ENDED = ".*CANCELLED AT.*"
AS_SHIPPED = "as-shipped"
"""A file in the lab's folder: where it is, the shipped file is called, and else one that waits longer."""


@pytest.fixture(scope="module")
def told() -> Iterator[Lab]:
    """A node whose site has a TaskEpilog of its own, which calls the shipped file and says so in the end.

    What slurmstepd gives a TaskEpilog names the lab, but not the agent's run_dir, which is where packages put it.
    """
    with tempfile.TemporaryDirectory(prefix="wk-site-", dir="/tmp") as folder:
        site = Path(folder) / "taskepilog"
        site.write_text(
            '#!/bin/sh\nset -eu\nexport WATTKEEPER_RUN_DIR="$WATTKEEPER_LAB/$SLURMD_NODENAME/run"\n'
            f'echo "dropped by slurmstepd"\nsnippet={patient(SNIPPET, Path(folder))}\n'
            f'[ ! -e "$WATTKEEPER_LAB/{AS_SHIPPED}" ] || snippet={SNIPPET}\n$snippet\necho "after: $?" >&2\n'
        )
        site.chmod(0o755)
        Path(folder).chmod(0o755)
        node = NodeSpec(settings={"interval": f"{TICK_S}s"})
        with Lab(LabSpec(nodes=(node,), policy=POLICY, slurm_conf=(f"TaskEpilog={site}",))) as lab:
            for gpu in range(4):
                lab.node(1).simulation.load(gpu, 0.5)
            yield lab


def lines(lab: Lab, job: int) -> list[str]:
    """What the job wrote, without what slurmstepd says of a cancellation and without the first line."""
    found = [line for line in lab.output(job).splitlines() if not re.fullmatch(ENDED, line)]
    assert found[0].startswith("wattkeeper: GPU"), found
    return found[1:]


def check_energy(found: re.Match[str], total: dict[str, Any], gpus: int, script_s: float) -> None:
    """The line's energy is of all that the script took, and of no more than the agent had when the job had ended.

    How much later that was is up to slurmstepd, slurmd and the Epilog.
    """
    number, unit = found["energy"].split()
    energy_j = float(number) * (1000 if unit == "kJ" else 1)
    assert 0.9 * gpus * script_s * total["mean_w"] <= energy_j <= 1.05 * total["energy_j"]  # the line's is rounded


def test_the_last_line_says_what_the_job_used(told: Lab) -> None:
    node = told.node(1)
    steps = "echo begun; srun -n2 --overlap true; sleep 5; echo ended"
    job = told.sbatch(steps, "-n2", "--gres=gpu:2")
    assert told.wait_done(job) == "COMPLETED"
    said = [line for line in lines(told, job) if not line.startswith("after")]
    assert said[:2] == ["begun", "ended"]
    assert len(said) == 3, "once, although there were steps with tasks"
    found = LINE.fullmatch(said[2])
    assert found is not None, said
    assert (int(found["job"]), found["gpus"]) == (job, "0,1")
    told_by_agent = report(node, job)["total"]
    check_energy(found, told_by_agent, 2, 5)
    assert float(found["mean"]) == pytest.approx(told_by_agent["mean_w"], rel=0.1)
    line = node.wattkeeper("job", str(job), "--line").stdout
    assert LINE.fullmatch(line.rstrip("\n")), line


def test_the_line_has_the_jobs_last_seconds_whatever_the_interval(told: Lab) -> None:
    node = told.node(1)
    often = node.settings
    node.write_settings({**often, "interval": "60s"})
    node.agent.restart()
    job = told.sbatch("sleep 5", "--gres=gpu:1")
    assert told.wait_done(job) == "COMPLETED"
    node.write_settings(often)
    node.agent.restart()
    found = LINE.fullmatch(lines(told, job)[0])
    assert found is not None
    check_energy(found, report(node, job)["total"], 1, 5)


def test_the_line_is_of_the_jobs_own_error_output(told: Lab) -> None:
    errors = told.files.out / "errors"
    job = told.sbatch("echo out; sleep 0.3; exit 3", "--gres=gpu:1", f"--error={errors}")
    assert told.wait_done(job) == "FAILED"
    assert lines(told, job) == ["out"]
    assert LINE.fullmatch(errors.read_text().splitlines()[0])


def test_a_cancelled_job_is_told_too(told: Lab) -> None:
    # Where the script's own sleep dies before its shell, the shell says "Terminated".
    job = told.sbatch("echo begun; exec sleep 60", "--gres=gpu:1")
    wait_until(lambda: "begun" in told.output(job), 10, "the job runs", note=False)
    let_ticks_pass(told.node(1))
    told.scancel(job)
    assert told.wait_done(job) == "CANCELLED"
    wait_until(lambda: "after" in told.output(job), 5, "its TaskEpilog has run", note=False)
    begun, line, *rest = lines(told, job)
    assert (begun, rest) == ("begun", ["after: 0"])
    assert LINE.fullmatch(line), line


def test_nothing_is_said_in_steps_or_to_jobs_without_gpus(told: Lab) -> None:
    assert told.srun("--gres=gpu:1", "echo", "only this") == "only this\n"
    job = told.sbatch("sbatch --version >/dev/null; srun --overlap echo step")
    assert told.wait_done(job) == "COMPLETED"
    assert sorted(set(told.output(job).splitlines())) == ["after: 0", "step"]


def test_a_job_ends_in_time_and_well_without_an_agent_and_with_a_hung_one(told: Lab) -> None:
    node = told.node(1)
    (told.files.root / AS_SHIPPED).touch()
    for trouble in ("hung", "gone"):
        gate = Gate(told, trouble)
        job = told.sbatch(f"{gate.wait}; date +%s.%N", "--gres=gpu:1")
        told.wait_running(job)
        wait_until(lambda job=job: "capped" in told.output(job), 10, "the job runs", note=False)  # type: ignore[misc]
        node.agent.pause() if trouble == "hung" else node.agent.kill()
        gate.open()
        wait_until(lambda job=job: "after: 0" in told.output(job), 10, "the TaskEpilog", note=False)  # type: ignore[misc]
        ended_at = float(lines(told, job)[0])
        said_at = (told.files.out / f"{job}.out").stat().st_mtime
        record(f"TaskEpilog with an agent that is {trouble}", said_at - ended_at, 0.5)
        assert len(lines(told, job)) == 2
        node.agent.resume() if trouble == "hung" else node.agent.start()
        assert told.wait_done(job) == "COMPLETED"
    (told.files.root / AS_SHIPPED).unlink()


def test_a_task_of_an_array_goes_by_its_name(told: Lab) -> None:
    node = told.node(1)
    gate = Gate(told, "array")
    job = told.sbatch(gate.wait, "--array=1-2", "--gres=gpu:1", "-n1")
    wait_until(lambda: len(told.squeue("-h", "-t", "R").splitlines()) == 2, 10, "both tasks run", note=False)
    command = [str(node.files.command), "job"]
    env = {**node.env, **told.env}
    first, last = (json.loads(run([*command, f"{job}_{task}", "--json"], env).stdout)["job_id"] for task in (1, 2))
    assert first != last == job or first == job != last
    assert run([*command, f"{job}_1"], env).stdout.startswith(f"job {first} ({job}_1) of {user()} on node1")
    wrong = run([*command, f"{job}_7"], env, check=False)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith(f"wattkeeper: job {job}_7: Slurm does not know it, or no longer; give the number")
    gate.open()
    told.wait_idle()


@pytest.fixture
def past(told: Lab) -> Iterator[Node]:
    """Job 1 of user 1000 on GPU 0, job 2 of nobody on GPUs 0 and 1, both ended and forgotten by the agent."""
    node = told.node(1)
    start_afresh(node)
    assert post(node, "prolog", 1, JOB_ACCOUNT="hush") == "applied"
    let_ticks_pass(node)
    post(node, "epilog", 1)
    assert post(node, "prolog", 2, "0,1", uid=NOBODY, JOB_COMMENT="power=350W", JOB_ACCOUNT="ml") == "applied"
    let_ticks_pass(node)
    post(node, "epilog", 2, "0,1", uid=NOBODY)
    yield node
    node.agent.stop()
    start_afresh(node)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_forgotten_job_is_told_from_the_ledger(past: Node) -> None:
    before = report(past, 2)
    past.agent.restart()
    after = report(past, 2)
    assert [job["job_id"] for job in past.agent.get("/v1/status")["jobs"]] == []
    same = ("job_id", "run", "node", "user", "account", "partition", "asked", "outcome", "started_at", "total")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert [gpu["energy_j"] for gpu in after["gpus"]] == [gpu["energy_j"] for gpu in before["gpus"]]
    assert [gpu["cap_w"] for gpu in after["gpus"]] == [350, 350]
    assert after["ended_at"] == pytest.approx(before["ended_at"], abs=0.01)
    assert set(after) == set(before)
    shown = past.wattkeeper("job", "2").stdout
    assert "got     GPUs 0,1: 350 W each" in shown
    assert "used" in past.wattkeeper("job", "2", "--line").stdout
    mine, other, none = (seen_by_nobody(past, f"/v1/jobs/{job}") for job in (2, 1, 3))
    assert (mine[0], mine[1]["total"]) == (200, before["total"])
    assert other[0] == none[0] == 404
    assert other[1]["error"].replace("job 1", "job 3").replace("-j 1 ", "-j 3 ") == none[1]["error"]
    assert "hush" not in json.dumps(other[1])
    assert seen_by_nobody(past, "/v1/jobs/1/line")[0] == 404
    assert seen_by_nobody(past, "/v1/jobs/2/line")[1].startswith("wattkeeper: job 2 used")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_report_sums_what_the_ledger_has_and_is_for_root(past: Node) -> None:
    answer = json.loads(past.wattkeeper("report", "--state-dir", str(past.files.state_dir), "--json").stdout)
    energies = {row["account"]: row["energy_j"] for row in answer["rows"]}
    assert energies == {"hush": report(past, 1)["total"]["energy_j"], "ml": report(past, 2)["total"]["energy_j"]}
    parts = sum(energies.values()) + answer["idle"]["energy_j"] + answer["unattributed"]["energy_j"]
    assert parts == pytest.approx(answer["total"]["energy_j"], abs=1e-6)
    assert [row["jobs"] for row in answer["rows"]] == [1, 1]
    ledger = past.files.state_dir / "state.db"
    assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
