"""``wattkeeper profiles``: what users read about what they may ask for, and that they get just that."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.agent_stub import agent_stub
from tests.unit.test_cli_agent import gpu, status

from wattkeeper.cli.described import gpu_context
from wattkeeper.cli.main import cli
from wattkeeper.config.policy import parse_policies
from wattkeeper.config.settings import GpuSettings
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.resolve import resolve
from wattkeeper.model import Conditions, JobFacts, JobKey, Outcome

GOLDEN = Path(__file__).parents[1] / "golden" / "cli-profiles.txt"
POLICY = """\
version: 1
profiles:
  eco: {cap: 60%}
  efficient: {cap: [{model: "*V100*", cap: 150W}, {model: "*H100*HBM3*", cap: 450W}]}
caps:
  - {name: debug, when: {partition: [debug, "short-*"]}, cap: eco}
  - {name: urgent, when: {qos: urgent}, cap: baseline}
  - name: ml
    when: {group: "ml-*"}
    cap: 80%
    requests: {min: 50%, max: 500W, outside: deny}
  - {name: wide, when: {gpus: ">=4"}, cap: 400W, mode: observe}
  - name: everyone
    cap: efficient
    requests: {min: min, max: baseline}
ceilings:
  - {name: warm, when: {partition: hot}, cap: 300W}
"""
QUESTIONS = (
    ("--user", "alice", "--group", "physics", "--gpu-model", "H100"),
    ("--user", "bob", "--group", "ml-vision", "--gpu-model", "V100", "--qos", "normal", "--partition", "gpu"),
    ("--user", "carol", "--group", "x", "--gpu-model", "A100", "--qos", "urgent", "--partition", "gpu", "--gpus", "8"),
    ("--user", "carol", "--group", "x", "--gpu-model", "A100", "--qos", "normal", "--partition", "gpu", "--gpus", "8"),
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environment)


def profiles(*arguments: str) -> str:
    result = run("profiles", "--policy", "policy.yaml", *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_its_words() -> None:
    printed = ""
    for question in QUESTIONS:
        printed += f"$ wattkeeper profiles {' '.join(question)}\n{profiles(*question)}\n"
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(printed)
    assert printed == GOLDEN.read_text()


@pytest.mark.parametrize("partition", ["debug", "short-1", "hot", "gpu"])
@pytest.mark.parametrize("asked", ["", "power=eco", "power=efficient", "power=350W", "power=501W", "power=baseline"])
def test_a_job_gets_what_was_promised(partition: str, asked: str) -> None:
    who = ("--gpu-model", "H100", "--partition", partition, "--user", "alice", "--group", "a", "--qos", "normal")
    (offer,) = json.loads(profiles(*who, "--json"))["offers"]
    policy, _ = parse_policies([("policy.yaml", POLICY)])
    h100 = gpu_context("H100", dict.fromkeys(("default", "min", "max", "baseline")), GpuSettings())
    job = JobFacts(
        JobKey("c", 1, "r0"), 1000, "alice", partition=partition, qos="normal", job_name="j", comment=asked, gpus=1,
        groups=frozenset({"a"}),
    )  # fmt: skip
    target = arbitrate([resolve(job, h100, policy, Conditions(0.0))], h100, policy)
    (decision,) = target.decisions
    assert decision.rule == offer["rule"]
    assert [mw / 1000 for mw in decision.allowed_mw or ()] == (offer["allowed_w"] or [])
    if decision.outcome in {Outcome.NONE, Outcome.DENIED}:
        assert (target.limit_mw or 0) / 1000 == offer["cap_w"]
    if asked in {"power=eco", "power=efficient"}:
        assert (decision.outcome is Outcome.GRANTED) == (asked.removeprefix("power=") in offer["profiles"])


def test_the_gpus_are_this_node_s_where_there_is_an_agent() -> None:
    """Two kinds of three: those that differ in what they take, or in what they had before."""
    gpus = [gpu(0), gpu(1), gpu(2, model="Tesla V100-SXM2-16GB", default_w=300.0, min_w=150.0, max_w=300.0,
                                baseline_w=None)]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="wk") as folder, agent_stub(Path(folder)) as stub:
        stub.answers["/v1/status"] = 200, status(gpus=gpus)
        told = json.loads(profiles("--json", "--run-dir", folder))
        output = profiles("--run-dir", folder)
    models: list[dict[str, Any]] = told["models"]
    assert [model["profiles"] for model in models] == [{"eco": 420, "efficient": 450}, {"eco": 180, "efficient": 150}]
    assert [model["baseline_w"] for model in models] == [700, None]
    assert told["node"] == "n1"
    assert "Tesla V100-SXM2-16GB: default 300 W, takes 150 W to 300 W\n" in output
    assert "not known yet" in output  # the cap `baseline` of a card whose baseline nobody has seen


def test_who_asks_is_the_user_of_the_command_unless_another_is_named() -> None:
    Path("policy.yaml").write_text("version: 1\ncaps:\n  - {name: root, when: {user: root, group: root}, cap: 60%}\n")
    mine = json.loads(profiles("--gpu-model", "H100", "--user", "root", "--json"))
    other = json.loads(profiles("--gpu-model", "H100", "--user", "no-such-user", "--json"))
    assert [offer["rule"] for offer in mine["offers"]] == ["root"]
    assert [offer["rule"] for offer in other["offers"]] == [None]
    if os.getuid() == 0:
        assert json.loads(profiles("--gpu-model", "H100", "--json")) | {"at": 0} == mine | {"at": 0}


def test_files_that_are_not_in_force_are_told() -> None:
    with tempfile.TemporaryDirectory(prefix="wk") as folder, agent_stub(Path(folder)) as stub:
        stub.answers["/v1/status"] = 200, status()
        Path("s.yaml").write_text(f"policies: {Path.cwd()}/policy.yaml\nrun_dir: {folder}\n")
        result = run("profiles", "--config", "s.yaml")
    assert result.exit_code == 0, result.output
    assert "the policy files differ from the policy that the agent goes by" in result.stderr


def test_without_a_gpu_or_a_policy_it_says_what_to_do(tmp_path: Path) -> None:
    result = run("profiles", "--policy", "policy.yaml", WATTKEEPER_RUN_DIR=str(tmp_path))
    assert result.exit_code == 1
    assert "Name their model with --gpu-model" in str(result.exception)
    assert "name one with --policy" in str(run("profiles", "--gpu-model", "H100").exception)


def test_partitions_and_options_complete_in_a_shell() -> None:
    words = {"COMP_WORDS": "wattkeeper profiles --p", "COMP_CWORD": "2", "_WATTKEEPER_COMPLETE": "bash_complete"}
    result = CliRunner().invoke(cli, [], prog_name="wattkeeper", env=words)
    assert "--partition" in result.output
    assert "--policy" in result.output
