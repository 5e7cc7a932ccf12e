"""Which policy holds: a bad one never does, and says where it is bad; what is explained is what was done."""

import json

import pytest

from tests.e2e.agents import POLICY, TICK_S, gpu_status, limits, metric, post, wait_limit
from tests.lab import Lab, Node, wait_until

BAD = """\
version: 1
profiles:
  eco: {cap: 60%}
caps:
  - name: debug
    when: {partition: debug, parttition: x}
    cap: ecco
  - name: everyone
    cap: 250V
  - name: everyone
    cap: baseline
"""
BAD_LINES = {6: "parttition", 7: "ecco", 9: "250V", 10: "everyone"}


@pytest.fixture
def node(alone: Lab) -> Node:
    return alone.node(1)


def named(text: str, path: str) -> dict[int, str]:
    """Of a list of problems the line number and the whole line of each that is no warning."""
    found = {}
    for line in text.splitlines():
        place = line.strip().removeprefix("wattkeeper: ")
        if place.startswith(f"{path}:") and "warning" not in place:
            found[int(place.removeprefix(f"{path}:").partition(":")[0])] = place
    return found


def assert_names_every_mistake(text: str, path: str) -> None:
    found = named(text, path)
    assert found.keys() == BAD_LINES.keys(), text
    for number, word in BAD_LINES.items():
        assert word in found[number]


def test_check_names_every_mistake_with_its_line(node: Node) -> None:
    path = node.write_policy(BAD)
    done = node.wattkeeper("check", check=False)
    assert done.returncode == 1
    assert_names_every_mistake(done.stdout + done.stderr, str(path))
    node.write_policy(POLICY)
    assert node.wattkeeper("check", "--config", str(node.files.settings)).returncode == 0


def test_no_agent_starts_with_a_bad_policy(node: Node) -> None:
    node.agent.stop()
    path = node.write_policy(BAD)
    done = node.wattkeeper("run", "--config", str(node.files.settings), check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert_names_every_mistake(done.stderr, str(path))


def test_a_reload_of_a_bad_policy_leaves_the_old_one_in_force(node: Node) -> None:
    before = node.agent.get("/v1/status")["policy"]
    began_at = metric(node, "policy_last_reload_success_timestamp_seconds")
    assert metric(node, "policy_last_reload_successful") == 1
    path = node.write_policy(BAD)
    logged = len(node.agent.log_text())
    node.agent.reload()
    assert metric(node, "policy_last_reload_successful") == 0
    assert metric(node, "policy_last_reload_success_timestamp_seconds") == began_at
    after = node.agent.get("/v1/status")["policy"]
    assert (after["digest"], after["reload_ok"]) == (before["digest"], False)
    assert f"{path}:7" in after["error"]
    log = node.agent.log_text()[logged:]
    assert "the old policy stays in force" in log
    assert_names_every_mistake(log, str(path))
    assert post(node, "prolog", 1, JOB_PARTITION="debug") == "applied"
    assert limits(node)[0] == 300


def test_a_reload_of_bad_settings_leaves_the_old_ones_in_force(node: Node) -> None:
    good = node.settings
    node.write_settings({**good, "drift": "fight"})
    node.agent.reload()
    assert metric(node, "policy_last_reload_successful") == 0
    assert "drift" in node.agent.get("/v1/status")["policy"]["error"]
    node.write_settings(good)
    node.agent.reload()
    assert metric(node, "policy_last_reload_successful") == 1


def test_a_good_policy_takes_over_also_for_jobs_that_run(node: Node) -> None:
    assert post(node, "prolog", 1, JOB_PARTITION="debug") == "applied"
    node.write_policy(BAD)
    node.agent.reload()
    before = node.agent.get("/v1/status")["policy"]["digest"]
    node.write_policy(POLICY.replace("300W", "350W"))
    node.agent.reload()
    wait_limit(node, 0, 350, TICK_S + 1, "a new policy is applied to a running job")
    assert metric(node, "policy_last_reload_successful") == 1
    policy = node.agent.get("/v1/status")["policy"]
    assert policy["reload_ok"] is True
    assert policy["error"] is None
    assert policy["digest"] != before
    assert metric(node, "policy_info", hash=policy["digest"]) == 1
    assert metric(node, "cap_writes_total", cause="reload") == 1


def test_a_policy_that_is_gone_is_a_bad_one(node: Node) -> None:
    (node.files.policies / "50-lab.yaml").unlink()
    node.agent.reload()
    assert metric(node, "policy_last_reload_successful") == 0
    assert post(node, "prolog", 1, JOB_PARTITION="debug") == "applied"
    assert limits(node)[0] == 300


@pytest.mark.parametrize(
    ("options", "limit_w", "outcome"),
    [
        (("-p", "debug"), 300, "none"),
        (("-p", "debug", "--comment=power=500W"), 300, "denied"),
        (("--comment=power=250W",), 250, "granted"),
        (("--comment=power=9kW",), 700, "clamped"),
        (("--comment=power=lots of it",), 700, "malformed"),
    ],
)
def test_explain_tells_what_was_done(
    alone: Lab, node: Node, options: tuple[str, ...], limit_w: int, outcome: str
) -> None:
    """Of a job that runs, and of the same job described by hand, which needs no agent."""
    job = alone.sbatch("echo begun; sleep 60", "--gres=gpu:1", *options)
    wait_until(lambda: "begun" in alone.output(job), 10, "the job's script runs", note=False)
    assert limits(node)[0] == limit_w
    gpu = json.loads(node.wattkeeper("explain", str(job), "--json").stdout)["gpus"][0]
    assert (gpu["cap_w"], gpu["outcome"]) == (limit_w, outcome)
    text = node.wattkeeper("explain", str(job)).stdout
    assert f"{limit_w} W" in text.splitlines()[-1]
    path = node.files.policies / "50-lab.yaml"
    assert f"{path}:{3 if '-p' in options else 6}" in text
    described = [word for option in options for word in option.replace("-p", "--partition").split("=", 1)]
    if "--partition" not in described:
        described += ["--partition", "gpu"]
    model = ("--gpu-model", gpu_status(node)["model"], "--policy", str(node.files.policies))
    offline = json.loads(node.wattkeeper("explain", *described, *model, "--json").stdout)
    assert (offline["cap_w"], offline["outcome"], offline["rule"]) == (limit_w, outcome, gpu["rule"])
    assert offline["steps"] == gpu["steps"]
