"""``wattkeeper sim`` as people and scripts use it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from wattkeeper.cli.sim import sim


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
    assert "--model V100, not H100-SXM5; --gpus 3, not 2 (mend: --replace)" in refused.output
    assert shown(state)[0]["requested_mw"] == 300_000
    run("env", "--gpus", "3", "--model", "V100", "--replace", state=state)
    assert [gpu["requested_mw"] for gpu in shown(state)] == [300_000] * 3


def test_limits_loads_and_faults_reach_one_gpu_or_all(state: Path) -> None:
    run("env", "--gpus", "2", state=state)
    run("clock", "manual", state=state)
    run("load", "all", "100%", state=state)
    run("load", "1", "0", state=state)
    run("set", "0", "--limit", "0.3kW", state=state)
    run("clock", "advance", "1s", state=state)
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
    run("clock", "manual", state=state)
    run("fault", "1", "lost", "--after", "1s", "--for", "2s", state=state)
    lines = run("show", state=state).output.splitlines()
    assert lines[0].split() == [
        *("GPU", "index", "model", "runs", "power", "sensed", "limit", "acting", "speed", "temp", "energy"),
        *("capped", "faults"),
    ]
    assert lines[2].split()[:9] == ["1", "1", "V100-PCIe", "idle", "25", "W", "25", "W", "250"]
    assert [line.partition(": ")[2] for line in lines[4:]] == ["GPU 1: fault lost", "GPU 1: mended of lost"]
    assert "a clock that stands still" in lines[3]


def test_what_is_planned_happens_and_is_forgotten(state: Path) -> None:
    run("env", "--gpus", "2", state=state)
    run("clock", "manual", state=state)
    run("fault", "0", "ignored", "--on", "set-limit", "--nth", "2", state=state)
    run("set", "1", "--limit", "400W", "--after", "5s", "--every", "10s", state=state)
    run("clock", "advance", "6s", state=state)
    assert [gpu["requested_mw"] for gpu in shown(state)] == [700_000, 400_000]
    plans = json.loads(run("show", "--json", state=state).output)["plans"]
    assert [(plan["kind"], plan["on"], plan["nth"], plan["every_s"]) for plan in plans] == [
        ("set-limit", None, 1, 10.0),
        ("break", "set-limit", 2, None),
    ]
    run("fault", "1", "hang", state=state)
    run("reset", "1", state=state)
    assert shown(state)[1]["requested_mw"] == 700_000
    run("reset", state=state)
    assert json.loads(run("show", "--json", state=state).output)["plans"] == []
    assert shown(state)[1]["faults"] == []


def test_load_waits_for_the_work_and_says_what_it_took(state: Path) -> None:
    run("env", "--gpus", "2", state=state)
    told = run("load", "0", "bert", "--work", "300ms", "--pid", str(os.getpid()), "--wait", state=state).output
    found = re.fullmatch(r"GPU 0: 0\.30 s of work in 0\.30 s, ([0-9]+) J\n", told)
    assert found, told
    assert 100 < int(found[1]) < 210
    first, second = shown(state)
    assert (first["load_name"], second["load_name"]) == (None, None)
    assert [process["pid"] for process in first["processes"]] == [os.getpid()]
    run("clock", "manual", state=state)
    refused = run("load", "0", "bert", "--work", "1s", "--wait", state=state, ok=False)
    assert "sim clock real" in refused.output


def test_a_file_of_recorded_power_is_played(state: Path, tmp_path: Path) -> None:
    run("env", "--gpus", "1", "--sensors", "ideal", state=state)
    run("clock", "manual", state=state)
    trace = tmp_path / "night.csv"
    trace.write_text("seconds,watts\n1,385\n1,133\n")
    run("load", "0", str(trace), "--once", state=state)
    run("clock", "advance", "500ms", state=state)
    assert (shown(state)[0]["power_mw"], shown(state)[0]["load_name"]) == (385_000, "night")
    run("clock", "advance", "1s", state=state)
    assert shown(state)[0]["power_mw"] == 133_000
    run("clock", "advance", "1s", state=state)
    assert shown(state)[0]["load_name"] is None


def test_a_scenario_creates_its_gpus_and_plans_its_events(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "day.yaml"
    file.write_text(
        "gpus: {model: A100, count: 2}\nclock: manual\nevents:\n  - {at: 10s, gpu: 1, fault: lost, for: 5s}\n"
    )
    assert "1 events; 2 things are planned" in run("scenario", str(file), state=state).output
    run("clock", "advance", "12s", state=state)
    assert [gpu["faults"] for gpu in shown(state)] == [[], ["lost"]]
    file.write_text("gpus: {count: 3}\nevents:\n  - {at: 10s, gpu: 1, fault: lots}\n")
    wrong = run("scenario", str(file), state=state, ok=False).output
    assert "day.yaml:3: events[#1].fault: 'lots' is not one of these: did you mean 'lost'?" in wrong


def test_mig_models_profiles_and_an_older_driver(state: Path) -> None:
    exports = run("env", "--gpus", "1", "--driver", "525", state=state).output
    assert "/lib/driver-525" in exports
    run("mig", "0", "3g.40gb", "1g.10gb", state=state)
    assert [instance["slices"] for instance in shown(state)[0]["mig"]] == [3, 1]
    run("mig", "0", state=state)
    assert shown(state)[0]["mig"] == []
    known = json.loads(run("models", "--json", state=state).output)
    assert {model["key"] for model in known} >= {"H100-SXM5", "V100-PCIe"}
    assert "H100-SXM5" in run("models", state=state).output
    rows = [line.split(maxsplit=1) for line in run("profiles", state=state).output.splitlines()[1:]]
    assert {row[0] for row in rows} >= {"steady", "deepspeech2", "inference"}
    assert all(len(row) == 2 for row in rows)  # each says what it is


def test_gpus_are_completed(state: Path) -> None:
    run("env", "--gpus", "3", state=state)
    words = {"COMP_WORDS": "sim fault ", "COMP_CWORD": "2", "_SIM_COMPLETE": "bash_complete"}
    env = {"WATTKEEPER_SIM_STATE": str(state), **words}
    told = CliRunner().invoke(sim, [], prog_name="sim", env=env).output
    assert [line.partition(",")[2] for line in told.splitlines()] == ["0", "1", "2", "all", "library"]


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
        (("fault", "library", "lost"), 1, "is of one GPU"),
        (("fault", "0", "no-driver"), 1, "is of the whole library"),
        (("fault", "0", "counter-jump", "5W"), 2, "needs an energy"),
        (("fault", "0", "xid"), 2, "needs a number"),
        (("fault", "0", "none", "all"), 2, "is no fault"),
        (("fault", "0", "lost", "--nth", "2"), 1, "`on` says which"),
        (("load", "0", "nothing"), 2, "memory-bound"),
        (("load", "0", "bert", "--wait"), 2, "--wait needs an end"),
        (("load", "0", "bert", "--once"), 2, "--once is for files"),
        (("set", "0"), 2, "say what to set"),
        (("set", "0", "--module-limit", "300W"), 1, "shares no module"),
        (("clock", "advance"), 2, "advance needs a time"),
        (("mig", "0", "9g.10gb"), 1, "is no MIG instance"),
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
    for verb in ("env", "set", "load", "fault", "scenario", "show", "reset", "reload-driver", "clock", "mig"):
        assert "Example" in CliRunner().invoke(sim, [verb, "--help"]).output
