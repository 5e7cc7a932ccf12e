"""Giving GPUs back without an agent: the commands as processes of their own, on simulated GPUs."""

import ctypes
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from build_simulator import refresh_in_tree
from wattkeeper.agent.offline import give_back
from wattkeeper.config.settings import Settings
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import GpuUuid, Holding, JobFacts, JobKey, Sharing
from wattkeeper.protocols import Change
from wattkeeper.simulator import Simulation
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import Milliwatts

BOOT = SystemClock().boot_id()
STRANGER = 12_345


@dataclass(frozen=True, slots=True)
class Place:
    """A node with three GPUs of 700 W at 300 W, 0 and 1 of which are ours."""

    root: Path
    simulation: Simulation

    def limits(self) -> list[int]:
        return [gpu.requested_mw // 1000 for gpu in self.simulation.show().gpus]

    def hold(self, job_id: int, minor: int, share: Sharing = Sharing.WHOLE, boot_id: str = BOOT) -> None:
        store = SqliteStore(self.root / "state" / "state.db")
        facts = JobFacts(JobKey("c", job_id, "r0"), uid=0)
        holding = Holding(facts, GpuUuid(self.simulation.gpu(minor).uuid), share, 1.0, 1.0)
        store.commit(Change(boot_id, 1.0, added=(holding,)))
        store.close()

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        env = {
            **os.environ,
            **self.simulation.env(),
            "WATTKEEPER_RUN_DIR": str(self.root / "run"),
            "WATTKEEPER_CONFIG": str(self.root / "s.yaml"),
            **environment,
        }
        command = [sys.executable, "-m", "wattkeeper.cli.main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=env)

    def restore(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.run("restore", "--config", str(self.root / "s.yaml"), *arguments)

    def give_back(self, job_id: int) -> "subprocess.CompletedProcess[str]":
        return self.run("hook", "give-back", SLURM_JOB_ID=str(job_id), SLURM_CLUSTER_NAME="c")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    refresh_in_tree()
    with Simulation.create(tmp_path / "gpus", gpus=3, limit_mw=Milliwatts(300_000)) as simulation:
        baselines = tmp_path / "run" / "baseline"
        baselines.mkdir(parents=True)
        (tmp_path / "state").mkdir(mode=0o700)
        (tmp_path / "s.yaml").write_text(f"state_dir: {tmp_path}/state\n")
        for gpu in simulation.show().gpus[:2]:
            content = {"uuid": gpu.uuid, "limit_mw": 650_000, "boot_id": BOOT}
            (baselines / f"{gpu.uuid}.json").write_text(json.dumps(content))
            (baselines / f"{gpu.uuid}.ours").write_text(BOOT)
        yield Place(tmp_path, simulation)


def test_restore_gives_back_what_is_ours(place: Place) -> None:
    done = place.restore()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "GPU 0: 300 W → 650 W: back at its baseline\n"
        "GPU 1: 300 W → 650 W: back at its baseline\n"
        "GPU 2: 300 W: not ours: left alone\n"
    )
    assert place.limits() == [650, 650, 300]
    assert "GPU 0: 650 W: not ours: left alone" in place.restore().stdout


def test_restore_of_some_by_the_declared_baseline(place: Place) -> None:
    with (place.root / "s.yaml").open("a") as file:
        file.write('gpus: {baseline: {"*H100*": 600W}}\n')
    assert json.loads(place.restore("--gpu", "1", "--json").stdout) == {
        "gpus": [{"gpu": 1, "old_w": 300.0, "limit_w": 600.0, "note": "back at its baseline"}]
    }
    assert place.limits() == [300, 600, 300]


def test_restore_says_what_cannot_be(place: Place) -> None:
    assert "no GPU 7 (it has: 0, 1, 2)" in place.restore("--gpu", "7").stderr
    place.simulation.fault(0, "no-permission")
    done = place.restore()
    assert done.returncode == 1
    assert "run the agent as root" in done.stdout
    assert place.limits() == [300, 650, 300]


def test_restore_leaves_a_living_agents_gpus_alone(place: Place) -> None:
    with (place.root / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = place.restore()
        assert place.give_back(1).returncode == 1
    assert done.returncode == 1
    assert "another agent is running" in done.stderr
    assert place.limits() == [300, 300, 300]


def test_nothing_was_ever_written(tmp_path: Path, place: Place) -> None:
    done = place.run("restore", "--run-dir", str(tmp_path / "other"))
    assert (done.returncode, done.stdout) == (
        0,
        "no agent runs, and none has written a limit since boot: nothing to restore\n",
    )


def test_give_back_sets_the_jobs_gpus_only(place: Place) -> None:
    place.hold(1, 0)
    place.hold(2, 1)
    assert place.give_back(1).returncode == 0
    assert place.limits() == [650, 300, 300]


@pytest.mark.parametrize("why", ["another holds it too", "it is shared", "of an earlier boot", "no ledger"])
def test_give_back_does_nothing_where_it_cannot_tell(place: Place, why: str) -> None:
    if why != "no ledger":
        share = Sharing.SHARED if why == "it is shared" else Sharing.WHOLE
        place.hold(1, 0, share, "earlier" if why == "of an earlier boot" else BOOT)
    if why == "another holds it too":
        place.hold(2, 0)
    assert place.give_back(1).returncode == 0
    assert place.limits() == [300, 300, 300]


SWAP = """
import ctypes, os, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
open("state.db", "wb").close()
os.symlink(sys.argv[2], "link")
print("ready", flush=True)
rename = ctypes.CDLL(None).renameat2
while True:
    if rename(-100, b"state.db", -100, b"link", 2):  # RENAME_EXCHANGE
        sys.exit("this file system swaps no names")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "renameat2"), reason="this C library has no renameat2")
def test_root_makes_nothing_where_the_ledgers_owner_leads_it() -> None:
    """The agent's user swaps its ledger for a link, again and again, while an Epilog of root's looks into it."""
    with tempfile.TemporaryDirectory(prefix="wk-swap-", dir="/tmp") as name:
        root, state = Path(name), Path(name) / "state"
        root.chmod(0o755)
        state.mkdir(mode=0o700)
        os.chown(state, STRANGER, STRANGER)
        (root / "run" / "baseline").mkdir(parents=True)
        settings = Settings(run_dir=root / "run", state_dir=state)
        argv = [sys.executable, "-c", SWAP, str(STRANGER), str(root / "made")]
        with subprocess.Popen(argv, cwd=state, stdout=subprocess.PIPE) as swapper:
            assert swapper.stdout is not None
            assert swapper.stdout.readline() == b"ready\n"
            for _ in range(200):
                give_back(settings, {"SLURM_JOB_ID": "1"})
            assert swapper.poll() is None, "it swapped all the while"
            swapper.kill()
        assert not (root / "made").exists()
        assert (os.geteuid(), os.getegid()) == (0, 0)
