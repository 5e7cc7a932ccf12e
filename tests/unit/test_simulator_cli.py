"""``wattkeeper sim`` as people and scripts use it."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from build_simulator import refresh_in_tree
from wattkeeper.cli.sim import sim


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    refresh_in_tree()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "gpus of mine"


def run(*arguments: str, state: Path, ok: bool = True) -> Result:
    result = CliRunner().invoke(sim, arguments, env={"WATTKEEPER_SIM_STATE": str(state), "COLUMNS": "120"})
    assert (result.exit_code == 0) is ok, result.output
    return result


def shown(state: Path) -> list[dict[str, Any]]:
    gpus: list[dict[str, Any]] = json.loads(run("show", "--json", state=state).output)["gpus"]
    return gpus


def test_its_exports_show_the_gpus_to_any_client(state: Path) -> None:
    exports = run("env", "--gpus", "2", "--model", "a100", state=state).output
    client = f"""{exports}
{shlex.quote(sys.executable)} -c 'import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetCount())'"""
    inherited = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    done = subprocess.run(["/bin/sh", "-euc", client], capture_output=True, text=True, env=inherited)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_env_creates_what_is_asked_for(state: Path) -> None:
    run("env", "--gpus", "4", "--order", "3,1,0,2", "--limit", "500W", "--profile", "driver", state=state)
    gpus = shown(state)
    assert [gpu["index"] for gpu in gpus] == [2, 1, 3, 0]
    assert {gpu["requested_mw"] for gpu in gpus} == {500_000}
    assert {gpu["name"] for gpu in gpus} == {"NVIDIA H100 80GB HBM3"}


def test_env_again_keeps_the_gpus_and_refuses_to_pass_them_off_for_others(state: Path) -> None:
    first = run("env", "--gpus", "2", state=state)
    run("set", "0", "--limit", "300W", state=state)
    assert run("env", "--gpus", "2", "--model", "h100", state=state).output == first.output
    refused = run("env", "--gpus", "3", "--model", "V100", state=state, ok=False)
    assert "--model V100, not H100; --gpus 3, not 2 (mend: --replace)" in refused.output
    assert shown(state)[0]["requested_mw"] == 300_000
    run("env", "--gpus", "3", "--model", "V100", "--replace", state=state)
    assert [gpu["requested_mw"] for gpu in shown(state)] == [300_000] * 3


def test_limits_loads_and_faults_reach_one_gpu_or_all(state: Path) -> None:
    run("env", "--gpus", "2", state=state)
    run("load", "all", "100%", state=state)
    run("load", "1", "0", state=state)
    run("set", "0", "--limit", "0.3kW", state=state)
    run("fault", "1", "oob", "250W", state=state)
    run("fault", "all", "hang", "1s", state=state)
    first, second = shown(state)
    assert (first["power_mw"], first["load"], first["faults"]) == (300_000, 1.0, ["hang"])
    assert (second["enforced_mw"], second["load"], second["faults"]) == (250_000, 0.0, ["hang", "oob"])
    run("fault", "all", "none", state=state)
    assert [gpu["faults"] for gpu in shown(state)] == [[], []]


def test_reload_driver_puts_limits_back(state: Path) -> None:
    run("env", "--gpus", "1", "--limit", "500W", state=state)
    run("reload-driver", state=state)
    assert shown(state)[0]["requested_mw"] == 700_000


def test_show_draws_a_table(state: Path) -> None:
    run("env", "--gpus", "2", "--model", "V100-PCIe", state=state)
    lines = run("show", state=state).output.splitlines()
    assert lines[0].split() == [
        "GPU",
        "index",
        "model",
        "load",
        "power",
        "limit",
        "enforced",
        "energy",
        "capped",
        "faults",
    ]
    assert lines[2].split()[:7] == ["1", "1", "V100-PCIe", "0%", "25", "W", "250"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("set", "0", "--limit", "100W"), 1, "allowed: 200 W to 700 W"),
        (("set", "7", "--limit", "300W"), 1, "no GPU 7"),
        (("set", "0", "--limit", "many"), 2, "is not a power"),
        (("load", "0", "120%"), 2, "0% to 100%"),
        (("load", "first", "50%"), 2, "neither a minor number nor `all`"),
        (("fault", "0", "oob"), 2, "oob needs a power"),
        (("fault", "0", "hang", "soon"), 2, "is not a time"),
        (("fault", "0", "lost", "5s"), 2, "takes no value"),
        (("env", "--gpus", "17"), 2, "0<=x<=16"),
    ],
)
def test_what_is_wrong_is_said(state: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    run("env", "--gpus", "2", state=state)
    result = run(*arguments, state=state, ok=False)
    assert (result.exit_code, message in result.output) == (code, True), result.output


def test_without_gpus_it_names_the_mend(state: Path) -> None:
    result = run("show", state=state, ok=False)
    assert (result.exit_code, "wattkeeper sim env --state" in result.output) == (1, True)


def test_every_verb_teaches() -> None:
    for verb in ("env", "set", "load", "fault"):
        assert "Example" in CliRunner().invoke(sim, [verb, "--help"]).output
