"""Many processes at the same simulated GPUs, some of them killed in the middle of whatever they did."""

import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hostile.hammer import LIMITS_MW

from wattkeeper.simulator import Simulation
from wattkeeper.units import Millijoules

ROOT = Path(__file__).parents[2]
GPUS = 3
HAMMERS = 4
KILLS = 20
NOBODY = 65_534
SOON_S = 20.0


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    folder = Path(tempfile.mkdtemp(prefix="wk-hammer-", dir="/tmp"))
    folder.chmod(0o755)  # pytest's own is closed to other users
    with Simulation.create(folder / "sim", model="H100", gpus=GPUS) as made:
        yield made
    shutil.rmtree(folder)


class Hammering:
    """One process that hammers, and what it says."""

    def __init__(self, simulation: Simulation, seed: int, user: int = 0) -> None:
        floor_mj = [str(gpu.counter_mj) for gpu in sorted(simulation.show().gpus, key=lambda gpu: gpu.index)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.hammer", str(simulation.state), str(seed), str(user), *floor_mj],
            cwd=ROOT,
            env={**os.environ, **simulation.env(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "daemon")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def goes_on(self) -> bool:
        """Whether it says of another round soon, and of nothing else."""
        assert self._process.stdout
        os.set_blocking(self._process.stdout.fileno(), False)
        said = self._process.stdout.read() or b""  # of earlier rounds
        ready, _, _ = select.select([self._process.stdout], [], [], SOON_S)
        said += (self._process.stdout.read() or b"") if ready else b""
        assert b"WRONG" not in said, said
        return bool(ready) and self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._end()

    def stop(self) -> int:
        """Its exit status, once it was asked to end; what it said is looked at, too."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        os.set_blocking(self._process.stdout.fileno(), True)
        said = self._process.stdout.read()
        assert b"WRONG" not in said, said
        return self._end()

    def _end(self) -> int:
        assert self._process.stdin
        assert self._process.stdout
        status = self._process.wait(SOON_S)
        self._process.stdin.close()
        self._process.stdout.close()
        return status


def test_kills_amid_changes_leave_the_others_at_work_and_the_state_whole(simulation: Simulation) -> None:
    chance = random.Random(20)  # noqa: S311
    hammers = [Hammering(simulation, seed) for seed in range(HAMMERS)]
    try:
        assert all(hammer.goes_on() for hammer in hammers)
        energy_mj = [Millijoules(0)] * GPUS
        for kill in range(KILLS):
            time.sleep(chance.uniform(0, 0.05))
            place = chance.randrange(HAMMERS)
            hammers[place].kill()
            gpus = simulation.show().gpus
            assert all(gpu.requested_mw in LIMITS_MW for gpu in gpus)
            assert all(gpu.counter_mj >= before for gpu, before in zip(gpus, energy_mj, strict=True))
            energy_mj = [gpu.counter_mj for gpu in gpus]
            hammers[place] = Hammering(simulation, HAMMERS + kill)
            assert all(hammer.goes_on() for hammer in hammers)
    finally:
        statuses = [hammer.stop() for hammer in hammers]
    assert statuses == [0] * HAMMERS
    assert len(simulation.show().gpus) == GPUS


def test_users_who_may_only_read_do_read_and_hold_nobody_up(simulation: Simulation) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    hammers = [Hammering(simulation, 1), *(Hammering(simulation, seed, NOBODY) for seed in (2, 3))]
    try:
        assert all(hammer.goes_on() for hammer in hammers)
        hammers[2].kill()
        assert all(hammer.goes_on() for hammer in hammers[:2])
    finally:
        statuses = [hammer.stop() for hammer in hammers[:2]]
    assert statuses == [0, 0]
