"""A node of eight simulated GPUs with `wattkeeper run` as a process of its own, and its hooks."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.agent import Agent
from tests.lab.config import node_command, user
from tests.lab.processes import LabError, environment, free_ports
from tests.lab.spec import BASELINE_POLICY, REPO, NodeFiles
from tests.lab.waiting import wait_until
from wattkeeper.simulator import Profile, Simulation
from wattkeeper.units import Milliwatts

GPUS = 8
CAP_W = 400
HOOKS = {event: REPO / "deploy" / "slurm" / f"{event}.d" / "50-wattkeeper" for event in ("prolog", "epilog")}


def progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Job:
    """A job that asked for a cap on some of the node's GPUs."""

    job_id: int
    minors: tuple[int, ...] = tuple(range(GPUS))
    account: str = "ml-vision"
    partition: str = "gpu"
    cap_w: int = CAP_W

    @property
    def environment(self) -> dict[str, str]:
        """What slurmd gives its hooks."""
        gpus = ",".join(map(str, self.minors))
        return {
            "SLURM_CLUSTER_NAME": "bench",
            "SLURMD_NODENAME": "node1",
            "SLURM_JOB_ID": str(self.job_id),
            "SLURM_JOB_UID": "1000",
            "SLURM_JOB_USER": "alice",
            "SLURM_JOB_ACCOUNT": self.account,
            "SLURM_JOB_PARTITION": self.partition,
            "SLURM_JOB_GPUS": gpus,
            "CUDA_VISIBLE_DEVICES": gpus,
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_COMMENT": f"power={self.cap_w}W",
        }


class BenchNode:
    """GPUs, settings and agent. The GPUs' time stands still until the agent has taken its first reading."""

    def __init__(
        self, root: Path, profile: Profile, *, model: str = "H100", interval: str = "1s", name: str | None = None
    ) -> None:
        self.profile = profile
        name = name or profile
        self.files = NodeFiles(name, root / name)
        no_slurm = self.files.root / "no-slurm" / "bin"
        for folder in (self.files.run_dir, self.files.state_dir, self.files.policies, no_slurm):
            folder.mkdir(parents=True)
        self.simulation = Simulation.create(self.files.simulation, model=model, gpus=GPUS, profile=profile)
        simulated = self.simulation.env()
        self.files.command.write_text(node_command(self.files, simulated))
        self.files.command.chmod(0o755)
        (self.files.policies / "bench.yaml").write_text(BASELINE_POLICY)
        (port,) = free_ports(1)
        settings = {
            "node": "node1",
            "interval": interval,
            "run_dir": str(self.files.run_dir),
            "state_dir": str(self.files.state_dir),
            "policies": str(self.files.policies),
            "metrics": {"listen": f"127.0.0.1:{port}"},
            "slurm": {"event_users": [user()], "bin_dir": str(no_slurm)},
        }
        self.files.settings.write_text(json.dumps(settings))
        self.agent = Agent(self.files, environment(root, **simulated), port)
        self.baseline_w = self.simulation.gpu(0).requested_mw // 1000
        self._last_id = 0
        self.simulation.set_clock("manual")
        self.energy_at_start_mj = {gpu.uuid: gpu.counter_mj for gpu in self.simulation.show().gpus}
        self.agent.start()
        self.simulation.set_clock("real")

    def job(
        self, minors: Sequence[int] = tuple(range(GPUS)), account: str = "ml-vision", partition: str = "gpu"
    ) -> Job:
        """A job that the node has not seen. It asks for CAP_W, or for what its GPUs have where that is less."""
        self._last_id += 1
        return Job(self._last_id, tuple(minors), account, partition, min(CAP_W, self.baseline_w))

    def post_s(self, event: str, job: Job) -> float:
        """Posts an event by a bare socket; the time until its answer. Raises LabError where a limit is not right."""
        answer, took = self._post(event, job)
        if b'"applied"' not in answer:
            raise LabError(f"{event} of job {job.job_id}: {answer!r}")
        self.check(event, job)
        return took

    def tell(self, event: str, job: Job) -> None:
        """Posts an event, and waits for its limits where a busy machine takes longer than a hook waits."""
        answer, _ = self._post(event, job)
        if b"the driver is slow" in answer:
            wait_until(lambda: self.right(event, job), 3, f"{event} of job {job.job_id} takes effect")
        elif b'"applied"' not in answer:
            raise LabError(f"{event} of job {job.job_id}: {answer!r}")
        self.check(event, job)

    def _post(self, event: str, job: Job) -> tuple[bytes, float]:
        """The agent's answer, and how long it took."""
        body = b"".join(f"{key}={value}\0".encode() for key, value in job.environment.items())
        head = f"POST /v1/events/{event} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            start = time.monotonic()
            client.connect(str(self.agent.events_socket))
            client.sendall(message)
            answer = b""
            while data := client.recv(65536):
                answer += data
            return answer, time.monotonic() - start

    def hook(self, event: str, job: Job, command: str | None = None) -> subprocess.Popen[bytes]:
        """Starts the shipped hook as slurmd does; ``command`` in place of this node's wattkeeper."""
        command = command or str(self.files.command)
        files = {"WATTKEEPER_RUN_DIR": str(self.files.run_dir), "WATTKEEPER_COMMAND": command}
        return subprocess.Popen(
            [str(HOOKS[event])],
            env={**job.environment, **files},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def hook_s(self, event: str, job: Job) -> float:
        """Runs the shipped hook; the time until it has ended."""
        start = time.monotonic()
        status = self.hook(event, job).wait()  # a wait with a time limit would poll, up to 50 ms apart
        took = time.monotonic() - start
        if status != 0:
            raise LabError(f"{event} of job {job.job_id}: exit status {status}")
        self.check(event, job)
        return took

    def right(self, event: str, job: Job) -> bool:
        """Whether the job's GPUs have, in truth, the limit that is right after that event."""
        wanted_mw = Milliwatts(1000 * (job.cap_w if event == "prolog" else self.baseline_w))
        gpus = self.simulation.show().gpus
        return all(gpus[minor].requested_mw == wanted_mw for minor in job.minors)

    def check(self, event: str, job: Job) -> None:
        if not self.right(event, job):
            limits = [gpu.requested_mw // 1000 for gpu in self.simulation.show().gpus]
            raise LabError(f"{event} of job {job.job_id} was answered, and the limits are {limits} W")

    def close(self) -> None:
        self.agent.close()
        self.simulation.close()
