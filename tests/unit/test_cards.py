"""Simulated cards answer as real ones were seen to: records of real cards, and the recorder on simulated ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.lab.spec import REPO

from wattkeeper.simulator import Simulation

RECORDS = sorted((REPO / "tests" / "cards").glob("*.json"))


_RECORD = """
import json, os
from tests.cards.record import record
from wattkeeper.simulator import Simulation
with Simulation.open(os.environ["WATTKEEPER_SIM_STATE"]) as simulation:
    at = 0.0
    def sleep(seconds):
        global at
        simulation.advance(seconds)
        at += seconds
    print(json.dumps(record(lambda: at, sleep)))
"""


def recorded(folder: Path, model: str) -> dict[str, Any]:
    """What the recorder sees of one simulated GPU under a load that never draws the same twice, by a manual clock."""
    with Simulation.create(folder / "gpus", model=model, gpus=1, clock="manual") as simulation:
        simulation.load(0, "inference")
        env = {**os.environ, **simulation.env()}
        argv = [sys.executable, "-c", _RECORD]
        done = subprocess.run(argv, cwd=REPO, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (gpu,) = json.loads(done.stdout)["gpus"]
    assert isinstance(gpu, dict)
    return gpu


@pytest.mark.parametrize(("model", "period_ms"), [("V100", 20), ("A100", 100), ("H100", 100)])
def test_sensors_update_as_often_as_the_model_says(tmp_path: Path, model: str, period_ms: int) -> None:
    gpu = recorded(tmp_path, model)
    for what in ("power", "energy"):
        assert gpu["update_period_ms"][what] == pytest.approx(period_ms, abs=2.5)


@pytest.mark.parametrize("record", RECORDS or [None], ids=lambda record: record.stem if record else "none")
def test_a_model_answers_as_the_card_did(tmp_path: Path, record: Path | None) -> None:
    if record is None:
        pytest.skip("no real NVIDIA GPU has been recorded yet (python -m tests.cards.record on one)")
    real = json.loads(record.read_text())["gpus"][0]
    simulated = recorded(tmp_path, real["answers"]["name"])
    for what in ("name", "default limit", "range", "highest clock", "memory"):
        assert simulated["answers"][what] == real["answers"][what]
    lacking = {what for what, answer in real["answers"].items() if isinstance(answer, dict)}
    assert {what for what, answer in simulated["answers"].items() if isinstance(answer, dict)} == lacking
