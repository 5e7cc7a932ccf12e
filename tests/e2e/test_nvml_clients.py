"""Programs of other people read and set simulated GPUs, as they are, and see what the simulation says is so.

The simulated clock stands still while a program looks, and sensors are ideal: so figures agree to the last digit shown.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.spec import REPO
from wattkeeper.simulator import Process, Simulation
from wattkeeper.simulator.views import Gpu
from wattkeeper.units import Milliwatts

CLIENTS = Path(sys.prefix) / "nvml-clients" / "bin"  # see .ci/setup
PATIENCE_S = 60


def client(name: str) -> str:
    path = shutil.which(name, path=str(CLIENTS))
    if path is None:
        pytest.skip(f"{name} is not installed (.ci/setup does that, where a package index is in reach)")
    return path


def environment(simulation: Simulation) -> dict[str, str]:
    return {**os.environ, **simulation.env(), "TERM": "xterm", "LC_ALL": "C.UTF-8"}


def run(simulation: Simulation, *command: str) -> str:
    done = subprocess.run(
        command, env=environment(simulation), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def still(folder: Path, model: str, gpus: int | None = None) -> Iterator[Simulation]:
    """GPUs whose time stands still."""
    with Simulation.create(folder / "sim", model=model, gpus=gpus, sensors="ideal", clock="manual") as simulation:
        yield simulation


@pytest.fixture
def job() -> Iterator[subprocess.Popen[bytes]]:
    """A real process, for clients look its pid up."""
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        yield process
        process.kill()


def put_to_work(simulation: Simulation, pid: int) -> None:
    """GPU 0 trains under a limit, with the job on it; the others are idle."""
    simulation.set_limit(0, Milliwatts(400_000))
    simulation.load(0, "training")
    simulation.set_processes(0, [Process(pid=pid, use=1.0, memory_mib=20_000)])
    simulation.advance(90)


def read_gpustat(simulation: Simulation) -> list[dict[str, Any]]:
    answer: dict[str, Any] = json.loads(run(simulation, client("gpustat"), "--json"))
    assert answer["driver_version"] == simulation.show().driver_version
    return list(answer["gpus"])


def as_gpustat(gpu: Gpu) -> dict[str, Any]:
    """What gpustat has to say of a GPU: it cuts watts off below one."""
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "temperature.gpu": int(gpu.temperature_c),
        "utilization.gpu": round(gpu.use * 100),
        "utilization.enc": 0,
        "utilization.dec": 0,
        "power.draw": gpu.sensed_mw // 1000,
        "enforced.power.limit": gpu.enforced_mw // 1000,
        "memory.used": sum(process.memory_mib for process in gpu.processes),
    }


def test_gpustat(tmp_path: Path, job: "subprocess.Popen[bytes]") -> None:
    with still(tmp_path, "H100", 2) as simulation:
        put_to_work(simulation, job.pid)
        seen = read_gpustat(simulation)
        for gpu, row in zip(simulation.show().gpus, seen, strict=True):
            assert row.items() >= as_gpustat(gpu).items()
            assert row["fan.speed"] is None  # an H100 has none
        assert seen[0]["power.draw"] > 300
        (process,) = seen[0]["processes"]
        assert (process["pid"], process["command"], process["gpu_memory_usage"]) == (job.pid, "sleep", 20_000)
        assert seen[1]["processes"] == []

        job.kill()
        job.wait()
        seen = read_gpustat(simulation)
        assert (seen[0]["processes"], seen[0]["memory.used"]) == ([], 0)


MIXED = "V100,H100,RTX3090,GH200"


def test_gpustat_on_a_mixed_node(tmp_path: Path) -> None:
    with still(tmp_path, MIXED) as simulation:
        simulation.load(2, "training")
        simulation.advance(60)
        seen = read_gpustat(simulation)
        for gpu, row in zip(simulation.show().gpus, seen, strict=True):
            assert row.items() >= as_gpustat(gpu).items()
        assert len({row["name"] for row in seen}) == 4
        fans = [row["fan.speed"] for row in seen]
        assert fans[:2] == [None, None]
        assert fans[2] > 30  # the one that has fans is hot


def test_a_gpu_that_is_lost_does_not_keep_gpustat_from_the_others(tmp_path: Path) -> None:
    with still(tmp_path, "H100", 3) as simulation:
        simulation.fault(1, "lost")
        seen = read_gpustat(simulation)
        assert [row.get("uuid") for row in seen] == [simulation.gpu(0).uuid, None, simulation.gpu(2).uuid]


def nvitop_rows(page: str, index: str) -> str:
    """The two lines of a GPU, or the one of an instance, as one text."""
    lines = page.split("Processes:")[0].splitlines()
    (at,) = [number for number, line in enumerate(lines) if re.match(rf"\|\s+{index}\s", line)]
    return " ".join(lines[at : at + 2])


def test_nvitop(tmp_path: Path, job: "subprocess.Popen[bytes]") -> None:
    with still(tmp_path, "H100", 2) as simulation:
        put_to_work(simulation, job.pid)
        page = run(simulation, client("nvitop"), "-1", "--ascii")
        assert f"Driver Version: {simulation.show().driver_version}" in page
        for gpu in simulation.show().gpus:
            row = nvitop_rows(page, str(gpu.index))
            assert gpu.pci_bus_id in row
            shown = re.search(r"N/A +(\d+)C +P0 +(\d+)W / (\d+)W \| +(\S+) / 79.65GiB \| +(\d+)%", row)
            assert shown is not None, row
            taken = {20_000: "20000MiB", 0: "0B"}[sum(process.memory_mib for process in gpu.processes)]
            power, limit = round(gpu.sensed_mw / 1000), gpu.requested_mw // 1000
            expected = (int(gpu.temperature_c), power, limit, taken, round(gpu.use * 100))
            assert shown.groups() == tuple(str(one) for one in expected)
        assert re.search(rf"\|\s+0\s+{job.pid} C .* 20000MiB +100 .*sleep 600", page), page


def test_nvitop_shows_mig_instances(tmp_path: Path, job: "subprocess.Popen[bytes]") -> None:
    with still(tmp_path, "H100", 2) as simulation:
        simulation.set_mig(0, ["3g.40gb", "1g.10gb"])
        simulation.load(0, 0.5)
        simulation.set_processes(0, [Process(pid=job.pid, use=1.0, memory_mib=9_000, instance=1)])
        simulation.advance(60)
        page = run(simulation, client("nvitop"), "-1", "--ascii")
        whole = nvitop_rows(page, "0")
        assert re.search(rf"{round(simulation.gpu(0).sensed_mw / 1000)}W / 700W", whole), whole
        assert "Enabled" in whole
        assert re.search(r"9000MiB / 79.65GiB \| +N/A ", whole), whole  # NVML has no utilisation of a GPU in MIG mode
        assert re.search(r"3g\.40gb @ GI/CI: 1/0 \| +0B / 39.\d+GiB", nvitop_rows(page, "0:0")), page
        assert re.search(r"1g\.10gb @ GI/CI: 2/0 \| +9000MiB / \d+MiB", nvitop_rows(page, "0:1")), page
        assert "Disabled" in nvitop_rows(page, "1")
        assert re.search(rf"\|\s+0:1\s+{job.pid} C .*9000MiB", page), page


def test_nvitop_on_a_mixed_node(tmp_path: Path) -> None:
    with still(tmp_path, MIXED) as simulation:
        page = run(simulation, client("nvitop"), "-1", "--ascii")
        for gpu in simulation.show().gpus:
            row = nvitop_rows(page, str(gpu.index))
            assert f"{round(gpu.sensed_mw / 1000)}W / {gpu.requested_mw // 1000}W" in row
        assert re.search(r"Off \| +N/A +N/A \|", nvitop_rows(page, "2"))  # neither MIG nor ECC
        assert re.search(r"Off \| +Disabled +0 \|", nvitop_rows(page, "3"))


ZEUS = """
import json, sys
from zeus.device import get_gpus
from zeus.monitor import ZeusMonitor

monitor = ZeusMonitor(gpu_indices=[0, 1])
monitor.begin_window("work", sync_execution=False)
print("begun", flush=True)
sys.stdin.readline()
measured = monitor.end_window("work", sync_execution=False)
gpus = get_gpus()
before = [gpus.get_power_management_limit(index) for index in (0, 1)]
gpus.set_power_management_limit(1, 250_000)
after = [gpus.get_power_management_limit(index) for index in (0, 1)]
names = [gpus.get_name(index) for index in (0, 1)]
print(json.dumps({"energy": measured.gpu_energy, "before": before, "after": after, "names": names}))
"""


def test_zeus_measures_a_window_and_sets_a_limit(tmp_path: Path) -> None:
    python = client("python")
    with still(tmp_path, "H100", 2) as simulation:
        simulation.load(0, "training")
        simulation.load(1, 0.5)
        simulation.advance(60)
        command = [python, "-c", ZEUS]
        with subprocess.Popen(
            command, env=environment(simulation), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert "begun\n" in process.stdout  # reads up to there
            start = simulation.show().gpus
            simulation.advance(100)
            end = simulation.show().gpus
            output, _ = process.communicate("\n", timeout=PATIENCE_S)
        assert process.returncode == 0
        told = json.loads(output.splitlines()[-1])
        for index in (0, 1):
            truth = (end[index].counter_mj - start[index].counter_mj) / 1000
            assert told["energy"][str(index)] == pytest.approx(truth, abs=0.001)
        assert told["energy"]["0"] > 100 * 300
        assert (told["before"], told["after"]) == ([700_000, 700_000], [700_000, 250_000])
        assert simulation.gpu(1).requested_mw == 250_000
        assert told["names"] == [gpu.name for gpu in end]


class Terminal:
    """A program in a terminal of 200 by 60, and all that it ever drew, as text without what moves the cursor."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.text = ""
        self._drawn = b""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
            os.execve(command[0], command, env)  # noqa: S606

    def read_until(self, pattern: str) -> "re.Match[str]":
        until = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.text)) is None:
            assert time.monotonic() < until, f"{pattern} is not in {self.text!r}"
            if select.select([self._terminal], [], [], 0.2)[0]:
                self._drawn += os.read(self._terminal, 65536)  # it may end amid such a code
                drawn = self._drawn.decode(errors="replace")
                self.text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]", " ", drawn)
        return found

    def quit(self) -> int:
        os.write(self._terminal, b"q")
        with contextlib.suppress(OSError):  # the terminal of a program that has ended
            while os.read(self._terminal, 65536):
                pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)


def test_nvtop(tmp_path: Path, job: "subprocess.Popen[bytes]") -> None:
    nvtop = shutil.which("nvtop", path=f"{os.environ['PATH']}:{REPO / '.venv/nvtop/usr/bin'}")
    if nvtop is None:
        pytest.skip("nvtop is not installed (Debian has it in its section contrib)")
    with still(tmp_path, "H100", 2) as simulation:
        put_to_work(simulation, job.pid)
        terminal = Terminal([nvtop, "-C"], environment(simulation))
        try:
            for gpu in simulation.show().gpus:
                terminal.read_until(rf"Device {gpu.index} +\[{gpu.name}\]")
                power, limit = gpu.sensed_mw // 1000, gpu.enforced_mw // 1000
                clock, heat = gpu.clock_mhz, int(gpu.temperature_c)
                terminal.read_until(rf"{clock}MHz +MEM +2619MHz +TEMP +{heat} .*POW +{power} / +{limit} W")
            terminal.read_until(r"20\.031Gi/79\.647Gi")  # nvtop counts what the driver reserves
            terminal.read_until(rf"{job.pid} +\w+ +0 +Compute +100% +20000MiB")
        finally:
            status = terminal.quit()
        assert status == 0
