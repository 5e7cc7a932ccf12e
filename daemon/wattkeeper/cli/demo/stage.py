"""What the demo plays on: a folder of its own with simulated GPUs, settings, a policy, and the agent as a process."""

import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from wattkeeper.cli.client import AgentClient
from wattkeeper.cli.demo.jobs import POLICY, ExampleJob
from wattkeeper.errors import AgentUnreachableError, WattkeeperError
from wattkeeper.shipped import shipped
from wattkeeper.simulator import Simulation
from wattkeeper.system.child import Child
from wattkeeper.system.clock import SystemClock
from wattkeeper.system.process import Finished, run

GPUS = 4
START_BOUND_S = 15.0
STOP_BOUND_S = 5.0
_LONGEST_FOLDER = 70  # of the 107 characters that the path of a unix socket may have
_COMMAND = (sys.executable, "-P", "-m", "wattkeeper.cli.main")

_CLIENT = """
import json, pynvml as n
n.nvmlInit()
gpus = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
print(json.dumps({n.nvmlDeviceGetMinorNumber(g): n.nvmlDeviceGetPowerManagementLimit(g) for g in gpus}))
"""


class Stage:
    """Made whole by ``start``; ``stop`` leaves nothing behind."""

    def __init__(self) -> None:
        self.root = _folder()
        self.run_dir = self.root / "run"
        self.gpus_dir = self.root / "gpus"
        self.port = _free_port()
        self.agent = AgentClient(self.run_dir, timeout_s=2.0)
        self.child: Child | None = None
        self._clock = SystemClock()
        self._simulation: Simulation | None = None

    @property
    def simulation(self) -> Simulation:
        """The GPUs, once they are there."""
        if self._simulation is None:
            self._simulation = Simulation.create(self.gpus_dir, model="H100", gpus=GPUS)
        return self._simulation

    async def start(self) -> None:
        """Create the GPUs and bring the agent up. Raises WattkeeperError with the agent's log where it does not."""
        environment = {**_inherited(), **self.simulation.env()}
        settings = self._write_files()
        self.child = Child(
            [*_COMMAND, "run", "--single", "--config", str(settings)], environment, self.root / "agent.log"
        )
        end = self._clock.mono() + START_BOUND_S
        while not self._answers():
            if self.child.ended() or self._clock.mono() > end:
                raise WattkeeperError(f"the agent did not start; {self.last_words()}")
            await self._clock.sleep(0.05)

    async def hook(self, event: str, job: ExampleJob) -> Finished:
        """Run the shipped hook file as slurmd would for this job."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "SLURM_SCRIPT_CONTEXT": f"{event}_slurmd",
            "SLURM_CLUSTER_NAME": "demo",
            "SLURMD_NODENAME": "demo",
            "SLURM_JOB_ID": str(job.job_id),
            "SLURM_JOB_UID": str(os.getuid()),
            "SLURM_JOB_USER": job.user,
            "SLURM_JOB_ACCOUNT": job.account,
            "SLURM_JOB_PARTITION": job.partition,
            "SLURM_JOB_COMMENT": job.comment,
            "SLURM_JOB_GPUS": ",".join(map(str, job.gpus)),
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_RESTART_COUNT": "0",
            "WATTKEEPER_RUN_DIR": str(self.run_dir),
            "WATTKEEPER_COMMAND": str(self.root / "wattkeeper"),
        }
        hook = shipped(f"deploy/slurm/{event}.d/50-wattkeeper")
        return await run(["/bin/sh", str(hook)], 5.0, environment)

    def load(self, job: ExampleJob, ratio: float) -> None:
        """What the job's processes do to its GPUs."""
        for minor in job.gpus:
            self.simulation.load(minor, ratio)

    async def limits_mw(self) -> dict[int, int]:
        """Each GPU's limit by minor number, as an NVML client in a process of its own reads it."""
        environment = {**_inherited(), **self.simulation.env()}
        done = await run([sys.executable, "-P", "-c", _CLIENT], 10.0, environment)
        if done.status != 0:
            raise WattkeeperError(f"the NVML client of the demo failed: {done.complaint}")
        return {int(minor): int(limit) for minor, limit in json.loads(done.output).items()}

    def status(self) -> Any:
        """The agent's status. Raises WattkeeperError."""
        return self.agent.get("/v1/status")

    def job(self, job_id: int) -> Any:
        """What the agent says of a job. Raises WattkeeperError."""
        return self.agent.get(f"/v1/jobs/{job_id}")

    def last_words(self) -> str:
        """The end of the agent's log."""
        lines = (self.root / "agent.log").read_text(errors="replace").splitlines()
        return "\n".join(["its log ends:", *lines[-15:]])

    async def stop(self) -> None:
        """End the agent and remove everything."""
        if self.child is not None:
            self.child.ask_to_end()
            end = self._clock.mono() + STOP_BOUND_S
            while not self.child.ended() and self._clock.mono() < end:
                await self._clock.sleep(0.02)
            self.child.kill()
        if self._simulation is not None:
            self._simulation.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return bool(self.status()["gpus"])
        except AgentUnreachableError:
            return False

    def _write_files(self) -> Path:
        """The policy, the settings, and the command that the hooks fall back to without curl; the settings' path."""
        (self.root / "policy.yaml").write_text(POLICY)
        command = self.root / "wattkeeper"
        path = f"PYTHONPATH={shlex.quote(os.environ['PYTHONPATH'])} " if "PYTHONPATH" in os.environ else ""
        command.write_text(f'#!/bin/sh\n{path}exec {shlex.join(_COMMAND)} "$@"\n')
        command.chmod(0o700)
        (self.root / "policy.yaml").chmod(0o600)  # the agent takes none that a group can change
        settings = self.root / "wattkeeper.yaml"
        settings.touch(mode=0o600)
        settings.write_text(
            f"""\
node: demo
interval: 1s
run_dir: {json.dumps(str(self.run_dir))}
state_dir: {json.dumps(str(self.root / "state"))}
policies: {json.dumps(str(self.root / "policy.yaml"))}
metrics: {{listen: "127.0.0.1:{self.port}"}}
slurm: {{lookup: "off", bin_dir: {json.dumps(str(self.root / "no-slurm" / "bin"))}}}   # also where there is a Slurm
"""
        )
        return settings


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="wattkeeper-demo-"))
    if len(str(folder)) > _LONGEST_FOLDER:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="wattkeeper-demo-", dir="/tmp"))
    return folder


def _inherited() -> dict[str, str]:
    """This process's environment without what would point the agent to another one's places."""
    ours = ("WATTKEEPER_", "SLURM", "NOTIFY_SOCKET", "WATCHDOG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
