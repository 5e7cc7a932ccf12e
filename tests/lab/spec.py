"""What a lab is made of, and where its files lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wattkeeper.simulator import Profile

REPO = Path(__file__).resolve().parents[2]

BASELINE_POLICY = """\
version: 1
caps:
  - name: everyone
    cap: baseline
    requests: {min: min, max: baseline}
"""


@dataclass(frozen=True)
class NodeSpec:
    """One node. `minors` are the device files of its GRES, in the order of gres.conf (None: every GPU, 0 first)."""

    gpus: int = 4
    model: str = "H100"
    minors: tuple[int, ...] | None = None
    shards: int = 0
    nvml_order: tuple[int, ...] | None = None
    initial_limit_w: int | None = None
    cpus: int = 16
    profile: Profile = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gres_minors(self) -> tuple[int, ...]:
        return tuple(range(self.gpus)) if self.minors is None else self.minors

    @property
    def gres_type(self) -> str:
        return self.model.lower().replace("-", "_")

    @property
    def gres(self) -> str:
        """The node's Gres= in slurm.conf."""
        shards = f",shard:{self.shards}" if self.shards else ""
        return f"gpu:{self.gres_type}:{len(self.gres_minors)}{shards}"


@dataclass(frozen=True)
class LabSpec:
    nodes: tuple[NodeSpec, ...] = (NodeSpec(),)
    agents: bool = True
    prometheus: bool = False
    scrape_s: int = 1
    """How often Prometheus scrapes the agents and evaluates rules."""
    dbd: bool = False
    """With slurmdbd over a MariaDB of the lab's own, so that jobs have accounts and QOS: see database.py."""
    rules: tuple[Path, ...] = ()
    """Files of rules that Prometheus evaluates, as often as it scrapes and not as the files say."""
    policy: str = BASELINE_POLICY
    prolog_flags: str = "Contain"
    slurm_conf: tuple[str, ...] = ()
    """Lines added to slurm.conf; a key given here replaces the lab's own line of that key."""


@dataclass(frozen=True)
class NodeFiles:
    name: str
    root: Path

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    @property
    def state_dir(self) -> Path:
        return self.root / "state"

    @property
    def simulation(self) -> Path:
        return self.root / "sim"

    @property
    def devices(self) -> Path:
        return self.root / "dev"

    @property
    def settings(self) -> Path:
        return self.root / "wattkeeper.yaml"

    @property
    def policies(self) -> Path:
        return self.root / "policies.d"

    @property
    def command(self) -> Path:
        """`wattkeeper` as this node has it: with its simulated GPUs, its settings and its run_dir."""
        return self.root / "wattkeeper"

    @property
    def notify_socket(self) -> Path:
        return self.root / "notify"

    @property
    def agent_log(self) -> Path:
        return self.root / "agent.log"


@dataclass(frozen=True)
class Files:
    """Everything of one lab lies under `root`, which must be short: a unix socket's path has 107 bytes."""

    root: Path

    @property
    def slurm_conf(self) -> Path:
        return self.root / "etc" / "slurm.conf"

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def out(self) -> Path:
        """The output of jobs; anybody may write there."""
        return self.root / "out"

    @property
    def hooks(self) -> Path:
        return self.root / "hooks"

    @property
    def munge(self) -> Path:
        return self.root / "munge"

    @property
    def nvml(self) -> Path:
        """A command that prints the GPUs of the node it runs on, as any NVML client sees them."""
        return self.root / "nvml"

    def node(self, name: str) -> NodeFiles:
        return NodeFiles(name, self.root / name)
