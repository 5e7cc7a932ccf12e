"""All that a user can do to have more power than policy allows, tried as a plain user on the real Slurm."""

import grp
import os
import subprocess
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.e2e.agents import let_ticks_pass, limits
from tests.e2e.walking import report
from tests.lab import Lab, LabSpec, NodeSpec, missing_programs, wait_until
from tests.lab.database import PROGRAMS
from tests.lab.processes import program

NOBODY = 65534
MOST_W, RULE_W, BASELINE_W = 450.0, 400.0, 700.0
GROUP = next(group for group in grp.getgrall() if group.gr_gid not in {0, NOBODY} and "nobody" not in group.gr_mem)
"""A group of this machine that nobody is not in."""
POLICY = f"""\
version: 1
profiles:
  everything: {{cap: max}}
caps:
  - name: members
    when: {{group: {GROUP.gr_name}}}
    cap: baseline
    requests: {{min: min, max: max}}
  - name: urgent
    when: {{qos: high}}
    cap: baseline
    requests: {{min: min, max: max}}
  - name: roots-sweeps
    when: {{job_name: "sweep-*", user: root}}
    cap: baseline
  - name: booked
    when: {{reservation: "*"}}
    cap: baseline
  - name: other-accounts
    when: {{not: {{account: ml}}}}
    cap: baseline
  - name: everyone
    cap: {RULE_W:.0f}W
    requests: {{min: min, max: {MOST_W:.0f}W}}
"""
LOOKED_UP_BOUND_S = 8.0
"""Where a Prolog did not wait for Slurm's answer."""
FORGED = "UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=1 Nice=0 Account=root QOS=high JobState=RUNNING"
STARTS: dict[str, tuple[Sequence[str], float]] = {
    "a comment": (["--comment=power=700W"], MOST_W),
    "max in a comment": (["--comment=power=max"], MOST_W),
    "a profile": (["--comment=power=everything"], MOST_W),
    "two wishes": (["--comment=power=200W power=700W"], RULE_W),
    "a JSON comment": (['--comment={"power": "700W"}'], MOST_W),
    "a comment with variables": (["--comment=x\nSLURM_JOB_QOS=high\nSLURM_JOB_ACCOUNT=root\npower=700W"], MOST_W),
    "a job name": (["--job-name=sweep-1"], RULE_W),
    "a job name with fields": ([f"--job-name=sweep-1 {FORGED}"], RULE_W),
    "a job name with lines": ([f"--job-name=x\nJobId=1 JobName=sweep-1 {FORGED}\n"], RULE_W),
    "a job name with rows": (["--job-name=x\n1|0|root|high|sweep-1\n"], RULE_W),
    "variables of its own": (
        ["--export=ALL,SLURM_JOB_QOS=high,SLURM_JOB_ACCOUNT=root,SPANK_WATTKEEPER_GPU_POWER=700W"],
        RULE_W,
    ),
    "fewer GPUs and more tasks": (["-n2", "--comment=power=700W"], MOST_W),
}
"""Options of sbatch, and the limit that the job's GPU then has in its first line."""
REFUSED: dict[str, Sequence[str]] = {
    "a QOS that is not theirs": ["--qos=high"],
    "an account that is not theirs": ["--account=root"],
    "a reservation that is not there": ["--reservation=any"],
    "another group": [f"--gid={GROUP.gr_gid}"],
    "another user": ["--uid=0"],
}
UPDATES = [
    "comment=power=700W",
    "jobname=sweep-1",
    "qos=high",
    "account=root",
    "reservationname=any",
    "partition=debug",
]

missing = missing_programs(PROGRAMS)
pytestmark = [
    pytest.mark.skipif(bool(missing), reason=f"not installed on this machine: {', '.join(missing)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    node = NodeSpec(settings={"interval": "0.25s"})
    with Lab(LabSpec(nodes=(node,), dbd=True, policy=POLICY)) as lab:
        assert lab.database
        lab.database.sacctmgr("modify", "user", "nobody", "set", "qos=normal")
        yield lab


def as_nobody(lab: Lab, *argv: str, gid: int = NOBODY, script: str | None = None) -> subprocess.CompletedProcess[str]:
    groups = [] if gid == NOBODY else [gid]
    return subprocess.run(
        [program(argv[0]), *argv[1:]],
        env=lab.env, input=script, capture_output=True, text=True, cwd="/tmp",
        user=NOBODY, group=gid, extra_groups=groups, timeout=60,
    )  # fmt: skip


def submit(lab: Lab, script: str, *options: str, gid: int = NOBODY) -> int:
    words = ("sbatch", "--parsable", "--gres=gpu:1", f"--output={lab.files.out}/%j.out", *options)
    done = as_nobody(lab, *words, gid=gid, script=f"#!/bin/sh\n{script}\n")
    assert done.returncode == 0, done.stderr
    return int(done.stdout.strip())


def begun_limit(lab: Lab, job: int) -> float:
    """What the job's GPU is limited to when the job's first line has run, in watts."""
    wait_until(lambda: "begun" in lab.output(job), 15, f"job {job} runs", note=False)
    return limit_of(lab, job)


def limit_of(lab: Lab, job: int) -> float:
    (gpu,) = report(lab.node(1), job)["gpus"]
    return limits(lab.node(1))[gpu["gpu"]]


def end(lab: Lab, job: int) -> None:
    lab.scancel(job)
    lab.wait_done(job)


@pytest.mark.parametrize("what", STARTS)
def test_no_start_of_a_job_has_more_than_its_rule_allows(lab: Lab, what: str) -> None:
    options, limit_w = STARTS[what]
    job = submit(lab, "echo begun; sleep 60", *options)
    assert begun_limit(lab, job) == limit_w
    end(lab, job)


@pytest.mark.parametrize("options", [["--qos=high"], ["--job-name=sweep-1"]])
def test_who_may_have_more_has_it(lab: Lab, options: Sequence[str]) -> None:
    """So that the rules which nobody reaches are such as somebody can."""
    job = lab.sbatch("echo begun; sleep 60", "--gres=gpu:1", *options)
    begun_limit(lab, job)
    wait_until(lambda: limit_of(lab, job) == BASELINE_W, LOOKED_UP_BOUND_S, "who may have more has it")
    end(lab, job)


def test_a_job_started_under_another_group_is_in_no_other_group(lab: Lab) -> None:
    """As after ``newgrp``, for one whom a group's password lets in: the user database still says no."""
    job = submit(lab, "id -g; echo begun; sleep 60", "--comment=power=700W", gid=GROUP.gr_gid)
    assert begun_limit(lab, job) == MOST_W
    assert str(GROUP.gr_gid) in lab.output(job).split()
    end(lab, job)


@pytest.mark.parametrize("what", REFUSED)
def test_what_slurm_itself_refuses(lab: Lab, what: str) -> None:
    done = as_nobody(lab, "sbatch", "--gres=gpu:1", *REFUSED[what], script="#!/bin/sh\ntrue\n")
    assert done.returncode != 0, done.stdout


def test_no_rewrite_of_a_running_job_changes_its_limit(lab: Lab) -> None:
    node = lab.node(1)
    job = submit(lab, "echo begun; sleep 60")
    assert begun_limit(lab, job) == RULE_W
    taken = [change for change in UPDATES if as_nobody(lab, "scontrol", "update", f"job={job}", change).returncode == 0]
    assert {"comment=power=700W", "jobname=sweep-1"} <= set(taken)
    step = as_nobody(lab, "srun", f"--jobid={job}", "--overlap", "--comment=power=700W", "--job-name=sweep-1", "true")
    assert step.returncode == 0, step.stderr
    let_ticks_pass(node)
    assert limit_of(lab, job) == RULE_W
    node.agent.reload()
    assert limit_of(lab, job) == RULE_W
    node.agent.restart()
    assert limit_of(lab, job) == RULE_W
    assert as_nobody(lab, "scontrol", "suspend", str(job)).returncode != 0
    end(lab, job)


def test_a_requeued_job_asks_anew_and_gets_no_more(lab: Lab) -> None:
    job = submit(lab, "echo begun $SLURM_RESTART_COUNT; sleep 60", "--requeue", "--open-mode=append")
    assert begun_limit(lab, job) == RULE_W
    assert as_nobody(lab, "scontrol", "update", f"job={job}", "comment=power=700W").returncode == 0
    assert as_nobody(lab, "scontrol", "requeue", str(job)).returncode == 0
    lab.wait_state(job, "PENDING")
    time.sleep(2)  # slurmd still revokes what it was given for the job in the second of its end
    lab.scontrol("update", f"job={job}", "EligibleTime=now")
    wait_until(lambda: "begun 1" in lab.output(job), 15, "it runs again", note=False)
    assert limit_of(lab, job) == MOST_W
    end(lab, job)
