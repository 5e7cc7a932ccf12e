"""The commands that talk to the agent, against a small real server on its sockets."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.agent_stub import AgentStub, agent_stub

from wattkeeper.cli.client import DEFAULT_RUN_DIR, AgentClient, AgentRefusedError
from wattkeeper.cli.main import cli
from wattkeeper.config.settings import DEFAULT_PATH
from wattkeeper.errors import AgentUnreachableError, WattkeeperError


@pytest.fixture
def agent() -> Iterator[AgentStub]:
    with tempfile.TemporaryDirectory(prefix="wk") as folder, agent_stub(Path(folder)) as stub:
        yield stub


def run(agent: AgentStub, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={"WATTKEEPER_RUN_DIR": str(agent.run_dir)})


def gpu(minor: int, **more: Any) -> dict[str, Any]:
    return {
        "gpu": minor, "uuid": f"GPU-{minor}", "model": "NVIDIA H100 80GB HBM3", "limit_w": 250.0, "enforced_w": 250.0,
        "target_w": 250.0, "baseline_w": 700.0, "default_w": 700.0, "min_w": 200.0, "max_w": 700.0, "power_w": 187.46,
        "energy_j": 12.0, "temperature_c": 41, "utilization": 0.93, "holders": ["12"],
        "why": "device: 250 W, within the device's 200 W to 700 W", "ours": True, "hold": None, "yielded": False,
        "error": None, "age_s": 0.2, **more,
    }  # fmt: skip


def used(**more: Any) -> dict[str, Any]:
    return {
        "energy_j": 500_000.0, "seconds": 1600.0, "mean_w": 312.5, "peak_w": 402.0, "capped_s": 200.0,
        "basis": ["sole"], "source": ["counter"], **more,
    }  # fmt: skip


def job_gpu(minor: int, **more: Any) -> dict[str, Any]:
    steps = [
        {"kind": "rule", "text": "rule 'ml': cap 80 %", "source": "p.yaml:4", "cap_w": 560.0},
        {"kind": "device", "text": "250 W, within the range", "source": None, "cap_w": 250.0},
    ]
    return {
        "gpu": minor, "uuid": f"GPU-{minor}", "model": "H100", "cap_w": 250.0, **used(),
        "decided_w": 250.0, "not_set": None,
        "outcome": "granted", "asked": "250W", "rule": "ml", "allowed_w": [200.0, 700.0], "observe": False,
        "pending": [], "steps": steps, **more,
    }  # fmt: skip


def job(**more: Any) -> dict[str, Any]:
    return {
        "job_id": 12, "run": "r0", "user": "alice", "account": "ml", "partition": "gpu", "cluster": "c", "node": "n1",
        "started_at": 1000.0, "ended_at": 1600.0, "asked": "250W", "outcome": "granted", "message": "m",
        "gpus": [job_gpu(1), job_gpu(0)], **more,
    }  # fmt: skip


def status(**more: Any) -> dict[str, Any]:
    return {
        "node": "n1", "cluster": "c", "mode": "enforce", "version": "0.1.0", "at": 4e9, "interval_s": 5.0,
        "alarms": [], "policy": {"digest": "abc", "reload_ok": True, "error": None}, "gpus": [gpu(0)], "jobs": [],
        **more,
    }  # fmt: skip


def test_status_shows_limits_and_why(agent: AgentStub) -> None:
    agent.answers["/v1/status"] = 200, status(jobs=[job()])
    result = run(agent, "status")
    assert result.exit_code == 0, result.output
    assert "n1 of c: mode enforce, policy abc, wattkeeper 0.1.0" in result.output
    assert "187.5 W" in result.output
    assert "within the device's 200 W to 700 W" in result.output
    assert "1.0 MJ" in result.output or "0.28 kWh" in result.output
    assert "ALARM" not in result.output


def test_status_says_what_is_wrong_first(agent: AgentStub) -> None:
    gpus = [
        gpu(0, error="GPU-0: lost; see dmesg"),
        gpu(1, hold={"reason": "burn-in", "since_at": 0.0, "until_at": None}),
        gpu(2, enforced_w=200.0, yielded=True),
        gpu(3, limit_w=None, enforced_w=None, power_w=None, temperature_c=None, utilization=None, holders=[], why=None),
    ]
    policy = {"digest": "abc", "reload_ok": False, "error": "p.yaml:3: no"}
    agent.answers["/v1/status"] = 200, status(at=0.0, alarms=["no map"], policy=policy, gpus=gpus)
    output = run(agent, "status").output
    assert "old: the agent may hang" in output
    assert "ALARM: no map" in output
    assert "the policy before it is in force: p.yaml:3: no" in output
    assert "ERROR: GPU-0: lost; see dmesg" in output
    assert "held until `wattkeeper resume`: burn-in" in output
    assert "250 W (holds: 200 W)" in output
    assert "left to another program" in output


def test_status_without_gpus(agent: AgentStub) -> None:
    agent.answers["/v1/status"] = 200, status(gpus=[])
    assert "no GPU to manage on this node" in run(agent, "status").output


def test_json_is_what_the_agent_said(agent: AgentStub) -> None:
    agent.answers["/v1/status"] = 200, status()
    agent.answers["/v1/jobs/12"] = 200, job()
    assert json.loads(run(agent, "status", "--json").output) == status()
    assert json.loads(run(agent, "job", "12", "--json").output) == job()
    assert json.loads(run(agent, "explain", "12", "--json").output) == job()


def test_job_groups_gpus_that_are_alike(agent: AgentStub) -> None:
    shared = used(basis=["even", "use"], source=["power"], energy_j=900.0, seconds=3.0, capped_s=0.0, peak_w=None)
    agent.answers["/v1/jobs/12"] = 200, job(gpus=[job_gpu(1), job_gpu(0), job_gpu(2, cap_w=None, **shared)])
    assert (
        run(agent, "job", "12").output
        == """\
job 12 of alice on n1 (account ml, partition gpu), ran for 10 min
asked   250W: granted
got     GPUs 0,1: 250 W each
got     GPU 2: limit left alone
energy  0.28 kWh: mean 312.5 W a GPU, peak 402 W, held back by the cap 12 % of the time
          GPU    energy    time     mean   peak  held back  divided by           from
            0  500.0 kJ  27 min  312.5 W  402 W       12 %  only holder          the card's counter
            1  500.0 kJ  27 min  312.5 W  402 W       12 %  only holder          the card's counter
            2     900 J     3 s    300 W      -        0 %  equal parts and use  integrated power
why     GPUs 0,1:
          rule: rule 'ml': cap 80 % (p.yaml:4)
          device: 250 W, within the range
why     GPU 2:
          rule: rule 'ml': cap 80 % (p.yaml:4)
          device: 250 W, within the range
"""
    )


def test_what_is_not_known_of_a_job_is_a_dash(agent: AgentStub) -> None:
    nothing = dict.fromkeys(("energy_j", "seconds", "mean_w", "peak_w", "capped_s"))
    agent.answers["/v1/jobs/12"] = 200, job(gpus=[job_gpu(0, **nothing, basis=[], source=[], steps=[])])
    assert run(agent, "job", "12").output.splitlines()[3:] == [
        "energy  -",
        "          GPU  energy  time  mean  peak  held back  divided by  from",
        "            0       -     -     -     -          -  -           -",
    ]


def test_the_mean_of_a_moment_is_a_dash(agent: AgentStub) -> None:
    agent.answers["/v1/jobs/12"] = 200, job(gpus=[job_gpu(0, energy_j=180.8, seconds=0.2, mean_w=904.0, steps=[])])
    assert run(agent, "job", "12").output.splitlines()[3:] == [
        "energy  181 J: peak 402 W, held back by the cap 100 % of the time",
        "          GPU  energy  time  mean   peak  held back  divided by   from",
        "            0   181 J   0 s     -  402 W      100 %  only holder  the card's counter",
    ]


def test_the_line_is_the_agents_own(agent: AgentStub) -> None:
    agent.answers["/v1/jobs/12/line"] = 200, "wattkeeper: job 12 used 1.20 kWh (GPU 0: mean 310 W)\n"
    result = run(agent, "job", "12", "--line")
    assert (result.exit_code, result.output) == (0, "wattkeeper: job 12 used 1.20 kWh (GPU 0: mean 310 W)\n")
    agent.answers["/v1/jobs/12/line"] = 404, {"error": "no job 12 of yours on this node"}
    assert isinstance(run(agent, "job", "12", "--line").exception, AgentRefusedError)
    assert run(agent, "job", "12", "--line", "--json").exit_code == 2


@pytest.mark.parametrize("name", ["12_", "_3", "12+", "0", "0_1", "-1", "12_3_4", "1e3", "99999999999"])
def test_what_is_no_job_id(agent: AgentStub, name: str) -> None:
    result = run(agent, "job", "--", name)
    assert result.exit_code == 2
    assert "is not a job id, such as 1234, 1234_5 (array) or 1234+1 (het job)" in result.output


def test_explain_of_a_job(agent: AgentStub) -> None:
    agent.answers["/v1/jobs/12"] = 200, job(gpus=[job_gpu(0, cap_w=None, observe=True, pending=["qos"])])
    assert (
        run(agent, "explain", "12").output
        == """\
job 12 of alice on n1
GPU 0: H100
  rule: rule 'ml': cap 80 % (p.yaml:4)
  device: 250 W, within the range
  qos: not known yet, and may change this
  applied: not capped: it would be 250 W (observed only: nothing is written)
"""
    )


def test_a_forgotten_job_has_the_cap_that_was_set_and_no_steps(agent: AgentStub) -> None:
    unknown: dict[str, Any] = {"decided_w": None, "observe": None, "not_set": None, "steps": []}
    agent.answers["/v1/jobs/12"] = 200, job(gpus=[job_gpu(0, **unknown), job_gpu(1, cap_w=None, **unknown)])
    assert [line for line in run(agent, "job", "12").output.splitlines() if line.startswith("got")] == [
        "got     GPU 0: 250 W",
        "got     GPU 1: not capped",
    ]
    assert (
        run(agent, "explain", "12").output
        == """\
job 12 of alice on n1
GPU 0: H100
  the steps of its decision are not kept: the agent has forgotten the job since it ended
  applied: 250 W
GPU 1: H100
  the steps of its decision are not kept: the agent has forgotten the job since it ended
  applied: not capped
"""
    )


def test_status_marks_caps_that_are_not_set(agent: AgentStub) -> None:
    gpus = [job_gpu(0), job_gpu(1, cap_w=None, observe=True), job_gpu(2, cap_w=None, not_set="not set yet")]
    agent.answers["/v1/status"] = 200, status(jobs=[job(gpus=[gpu]) for gpu in gpus])
    lines = run(agent, "status").output.splitlines()
    assert [re.split(" {2,}", line)[-3] for line in lines[-3:]] == [
        "250 W",
        "250 W (observed only)",
        "250 W (not set)",
    ]


def test_until_when_a_cap_stands_is_told_and_what_is_applied_comes_last(agent: AgentStub) -> None:
    timed = {"next_change": 1_798_822_800.0, "until": "18:00 CET"}
    agent.answers["/v1/jobs/12"] = 200, job(gpus=[job_gpu(0, **timed), job_gpu(1)])
    assert [line for line in run(agent, "explain", "12").output.splitlines() if "rule" not in line] == [
        "job 12 of alice on n1",
        "GPU 0: H100",
        "  device: 250 W, within the range",
        "  stands until 18:00 CET at least, as far as time goes",
        "  applied: 250 W",
        "GPU 1: H100",
        "  device: 250 W, within the range",
        "  applied: 250 W",
    ]
    agent.answers["/v1/status"] = 200, status(gpus=[gpu(0, **timed)])
    assert "; until 18:00 CET at least" in run(agent, "status").output


def test_what_users_wrote_cannot_move_the_cursor(agent: AgentStub) -> None:
    agent.answers["/v1/jobs/12"] = 200, job(user="a\x1b[2Jb", asked="x\ny")
    output = run(agent, "job", "12").output
    assert "\x1b" not in output
    assert "asked   x\\x0ay: granted" in output


def test_unknown_job(agent: AgentStub) -> None:
    agent.answers["/v1/jobs/99"] = 404, {"error": "no job 99 of yours on this node"}
    result = run(agent, "job", "99")
    assert isinstance(result.exception, AgentRefusedError)
    assert (result.exception.status, str(result.exception)) == (404, "no job 99 of yours on this node")


@pytest.mark.skipif(DEFAULT_RUN_DIR.exists() or DEFAULT_PATH.exists(), reason="an agent is installed here")
def test_without_an_agent_it_is_said_where_ended_jobs_are_to_be_found() -> None:
    error = str(CliRunner().invoke(cli, ["job", "101"], env={"WATTKEEPER_RUN_DIR": None}).exception)
    assert "no agent is listening" in error
    assert error.endswith("; jobs that ended are in /var/lib/wattkeeper/records as well, for root")


def test_hold_resume_and_restore(agent: AgentStub) -> None:
    for action in ("hold", "resume", "restore"):
        agent.answers[f"/v1/control/{action}"] = 200, {"gpus": [{"gpu": 3, "limit_w": 700.0, "note": f"{action} it"}]}
    assert run(agent, "hold", "--gpu", "3", "--for", "2h", "--reason", "test").output == "GPU 3: 700 W: hold it\n"
    assert run(agent, "resume", "--gpu", "1", "--gpu", "3").output == "GPU 3: 700 W: resume it\n" * 2
    assert json.loads(run(agent, "restore", "--json").output)["gpus"][0]["note"] == "restore it"
    assert [(path, json.loads(body)) for path, body in agent.posted] == [
        ("/v1/control/hold", {"gpu": 3, "seconds": 7200.0, "reason": "test"}),
        ("/v1/control/resume", {"gpu": 1}),
        ("/v1/control/resume", {"gpu": 3}),
        ("/v1/control/restore", {"gpu": None}),
    ]


def test_a_hung_agent_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "read.sock"))
        listener.listen()
        with pytest.raises(AgentUnreachableError, match=r"no answer in 0.05 s: see `systemctl status wattkeeper`"):
            AgentClient(tmp_path, 0.05).get("/v1/status")


def test_no_agent_and_other_answers(tmp_path: Path, agent: AgentStub) -> None:
    with pytest.raises(AgentUnreachableError, match="is it running"):
        AgentClient(tmp_path).get("/v1/status")
    agent.answers["/v1/status"] = 200, "<html>"
    with pytest.raises(WattkeeperError, match="not JSON"):
        AgentClient(agent.run_dir).get("/v1/status")
    agent.answers["/v1/status"] = 500, "<html>"
    with pytest.raises(AgentRefusedError, match="HTTP status 500"):
        AgentClient(agent.run_dir).get("/v1/status")


PATIENT_HOOK = """
from wattkeeper.cli import hook, main
hook.DEADLINES_S.update(prolog=20.0, epilog=20.0)
main.main()
"""
"""The command, with all the time it may need: a busy machine is slow to answer."""


def hook(agent: AgentStub, event: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "WATTKEEPER_RUN_DIR": str(agent.run_dir), **environment}
    command = [sys.executable, "-c", PATIENT_HOOK, "hook", event]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def test_hook_hands_on_the_environment_byte_for_byte(agent: AgentStub) -> None:
    agent.answers["/v1/events/epilog"] = 200, {"outcome": "taken"}
    done = hook(agent, "epilog", SLURM_JOB_ID="7", SLURM_JOB_COMMENT="a\nSLURM_JOB_GPUS=9")
    assert (done.returncode, done.stderr) == (0, "")
    path, body = agent.posted[0]
    assert path == "/v1/events/epilog"
    assert b"SLURM_JOB_COMMENT=a\nSLURM_JOB_GPUS=9" in body.split(b"\0")


@pytest.mark.parametrize(
    ("event", "status", "code"), [("prolog", 409, 9), ("epilog", 409, 1), ("prolog", 400, 1), ("prolog", 500, 1)]
)
def test_hook_exit_codes(agent: AgentStub, event: str, status: int, code: int) -> None:
    agent.answers[f"/v1/events/{event}"] = status, "no"
    assert hook(agent, event, SLURM_JOB_ID="7").returncode == code


def test_hook_without_an_agent(agent: AgentStub, tmp_path: Path) -> None:
    done = hook(agent, "prolog", WATTKEEPER_RUN_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "no agent is listening" in done.stderr
