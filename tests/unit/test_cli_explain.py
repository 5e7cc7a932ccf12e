"""``wattkeeper explain`` without an agent: its words, and the GPUs it knows."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattkeeper.cli.described import gpu_context
from wattkeeper.cli.main import cli
from wattkeeper.config.settings import GpuSettings
from wattkeeper.errors import WattkeeperError

REPO = Path(__file__).parents[2]
GOLDEN = REPO / "tests" / "golden" / "cli-explain.txt"
NO_LIMITS = dict.fromkeys(("default", "min", "max", "baseline"))
POLICY = """\
version: 1
profiles:
  eco: {cap: 50%}
caps:
  - name: debug
    when: {partition: debug}
    cap: eco
  - name: ml
    when: {account: "ml-*"}
    cap: 80%
    requests: {min: 40%, max: baseline}
  - name: everyone
    cap: baseline
    requests: {min: min, max: baseline, outside: deny}
ceilings:
  - name: wide
    when: {gpus: ">=2"}
    cap: 75%
"""
QUESTIONS = (
    ("--partition", "debug", "--comment", "power=300W", "--gpu-model", "H100"),
    ("--account", "ml-x", "--comment", "power=1W", "--gpu-model", "A100", "--baseline", "350W"),
    ("--account", "ml-x", "--gpus", "2", "--gpu-model", "V100"),
    ("--comment", "power=9kW", "--gpu-model", "NVIDIA H100 NVL"),
    ("--comment", "power=25OW", "--gpu-model", "Own", "--default", "500W", "--min", "100W", "--max", "600W"),
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY)


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["explain", *arguments])


def test_its_words() -> None:
    printed = ""
    for question in QUESTIONS:
        result = explain("--policy", "policy.yaml", *question)
        assert result.exit_code == 0, result.output
        printed += f"$ wattkeeper explain {' '.join(question)}\n{result.output}\n"
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(printed)
    assert printed == GOLDEN.read_text()


def test_json_says_the_same() -> None:
    told = json.loads(explain("--policy", "policy.yaml", "--json", *QUESTIONS[1]).output)
    assert (told["cap_w"], told["outcome"], told["rule"], told["asked"]) == (160.0, "clamped", "ml", "1W")
    assert told["allowed_w"] == [160.0, 350.0]
    assert told["steps"][0]["source"] == "policy.yaml:8"


def test_settings_count() -> None:
    Path("s.yaml").write_text(
        f"policies: {Path.cwd()}/policy.yaml\nmode: observe\ngpus: {{baseline: {{'*H100*': 600W}}}}\n"
    )
    output = explain("--config", "s.yaml", "--gpu-model", "H100").output
    assert "baseline 600 W" in output
    assert output.endswith("applied: 600 W (observed only: nothing is written)\n")


def test_wrong_use() -> None:
    assert explain().exit_code == 2
    assert explain("12", "--gpu-model", "H100").exit_code == 2
    assert explain("--partition", "x").exit_code == 2
    assert explain("--gpu-model", "H100", "--min", "many").exit_code == 2


def test_which_model() -> None:
    assert gpu_context("a100", NO_LIMITS, GpuSettings()).info.default_mw == 400_000
    assert gpu_context("*H100 NVL", NO_LIMITS, GpuSettings()).info.model == "NVIDIA H100 NVL"
    with pytest.raises(WattkeeperError, match="several models fit 'V100\\*'"):
        gpu_context("V100*", NO_LIMITS, GpuSettings())
    with pytest.raises(WattkeeperError, match="give --default, --min and --max"):
        gpu_context("Own", NO_LIMITS, GpuSettings())
    with pytest.raises(WattkeeperError, match="is outside of"):
        gpu_context("H100", {**NO_LIMITS, "default": 900_000}, GpuSettings())


def test_a_policy_with_mistakes_tells_them() -> None:
    Path("bad.yaml").write_text("version: 1\nidle: {cap: 1%%}\n")
    result = explain("--policy", "bad.yaml", "--gpu-model", "H100")
    assert "bad.yaml:2" in str(result.exception)


def test_what_a_look_up_may_still_tell_is_not_known_unless_it_is_named(tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(
        "version: 1\ncaps:\n"
        "  - {name: q, when: {qos: high}, cap: 300W}\n"
        "  - {name: j, when: {job_name: 'hpl*'}, cap: 400W}\n"
        "  - {name: g, when: {group: students}, cap: 350W}\n"
        "  - {name: all, cap: 80%}\n"
    )

    def rule(*named: str) -> tuple[str, list[str]]:
        arguments = ["explain", "--policy", str(policy), "--gpu-model", "H100", "--json", *named]
        printed = json.loads(CliRunner().invoke(cli, arguments).output)
        return printed["rule"], printed["pending"]

    assert rule() == ("q", ["group", "job_name", "qos"])
    assert rule("--qos", "high") == ("q", [])
    assert rule("--qos", "low", "--job-name", "hpl-64") == ("j", [])
    assert rule("--qos", "low", "--job-name", "x", "--group", "staff", "--group", "students") == ("g", [])
    assert rule("--qos", "low", "--job-name", "x", "--group", "staff") == ("all", [])


def test_models_that_can_be_simulated_are_known_too() -> None:
    gpu = gpu_context("H200", NO_LIMITS, GpuSettings())
    assert (gpu.info.model, gpu.info.min_mw, gpu.info.max_mw) == ("NVIDIA H200", 200_000, 700_000)
