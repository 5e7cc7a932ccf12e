"""One node of the lab: its slurmd, its simulated GPUs, its agent."""

import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import config
from tests.lab.agent import Agent
from tests.lab.processes import Daemon, environment, run
from tests.lab.spec import Files, NodeSpec
from wattkeeper.simulator import Simulation
from wattkeeper.units import Milliwatts


@dataclass(frozen=True)
class GpuView:
    """One GPU as an NVML client of another process sees it."""

    index: int
    minor: int
    uuid: str
    name: str
    requested_w: float
    enforced_w: float
    default_w: float
    min_w: float
    max_w: float
    energy_j: float


@dataclass(frozen=True)
class SpooledEvent:
    event: str
    path: Path
    env: dict[str, str]

    @property
    def job(self) -> int:
        return int(self.env["SLURM_JOB_ID"])


def parse_environment(block: bytes) -> dict[str, str]:
    """Variables of a NUL-separated block, as a hook leaves it."""
    texts = block.decode(errors="surrogateescape").split("\0")
    return dict(text.partition("=")[::2] for text in texts if "=" in text)


class Node:
    def __init__(self, name: str, spec: NodeSpec, lab: Files, metrics_port: int) -> None:
        self.name = name
        self.spec = spec
        self.files = lab.node(name)
        self._lab = lab
        spool = self.files.root / "slurmd"
        for folder in (self.files.root, self.files.run_dir, self.files.state_dir, self.files.policies, spool):
            folder.mkdir()
        config.make_devices(self.files, spec)
        limit = None if spec.initial_limit_w is None else Milliwatts(spec.initial_limit_w * 1000)
        self.simulation = Simulation.create(
            self.files.simulation,
            model=spec.model,
            gpus=spec.gpus,
            order=spec.nvml_order,
            limit_mw=limit,
            profile=spec.profile,
        )
        simulated = self.simulation.env()
        self.env = environment(lab.root, **simulated)
        exports = "".join(f"export {key}='{value}'\n" for key, value in simulated.items())
        (self.files.root / "sim.env").write_text(exports)
        self.files.command.write_text(config.node_command(self.files, simulated))
        self.files.command.chmod(0o755)
        self.write_settings(config.agent_settings(lab, self.files, spec, metrics_port))
        self.agent = Agent(self.files, self.env, metrics_port)
        slurmd_env = environment(lab.root, SLURM_CONF=str(lab.slurm_conf))
        log = lab.log / f"slurmd-{name}.log"
        self.slurmd = Daemon(f"slurmd of {name}", ["slurmd", "-D", "-N", name], slurmd_env, log)

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Settings as JSON, which is YAML."""
        self.settings = settings
        self.files.settings.write_text(json.dumps(settings, indent=1) + "\n")

    def write_policy(self, text: str, name: str = "50-lab.yaml") -> Path:
        path = self.files.policies / name
        path.write_text(text)
        return path

    def wattkeeper(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A `wattkeeper` command on this node."""
        return run([str(self.files.command), *words], self.env, check=check)

    def gpus(self) -> dict[int, GpuView]:
        """Every GPU by minor number, seen by an NVML client in a process of its own."""
        done = run([str(self._lab.nvml)], {**self.env, "SLURMD_NODENAME": self.name})
        return {row["minor"]: GpuView(**row) for row in json.loads(done.stdout)}

    def limits_w(self) -> dict[int, float]:
        """The requested limit of every GPU, by minor number, in watts."""
        return {minor: gpu.requested_w for minor, gpu in self.gpus().items()}

    def close(self) -> None:
        self.agent.close()
        self.simulation.close()

    def spooled(self) -> list[SpooledEvent]:
        """The events that wait for the agent, oldest first."""
        folder = self.files.run_dir / "spool"
        found = []
        for path in sorted(path for path in folder.glob("*") if path.suffix in (".prolog", ".epilog")):
            with suppress(FileNotFoundError):  # the agent has just taken it
                found.append(SpooledEvent(path.suffix[1:], path, parse_environment(path.read_bytes())))
        return found

    def clear_spool(self) -> None:
        for event in self.spooled():
            event.path.unlink(missing_ok=True)
