"""The contract of reading, on the real card of this machine, in a process that never saw the simulator."""

import json
import os
import subprocess
import sys

import pytest
from tests.lab.spec import REPO

NO_CARD = 3


@pytest.mark.gpu
def test_a_real_card_keeps_the_contract_of_reading() -> None:
    real = {
        name: value for name, value in os.environ.items() if name not in {"LD_LIBRARY_PATH", "WATTKEEPER_SIM_STATE"}
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.reading"], cwd=REPO, env=real, capture_output=True, text=True, timeout=60
    )
    if done.returncode == NO_CARD:
        pytest.skip("needs a real NVIDIA GPU and its driver")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
