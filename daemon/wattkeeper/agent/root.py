"""What the agent needs of root: in its own process, or of the actuator beside it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wattkeeper.gpus.actuator import SOCKET, RemoteLimits, SetsLimits
from wattkeeper.privileged.baselines import Baselines
from wattkeeper.privileged.evidence import evidence_of
from wattkeeper.privileged.limits import Limits
from wattkeeper.privileged.nvml import Nvml

BASELINES = "baseline"


@dataclass(frozen=True, slots=True)
class Root:
    """``evidence_of``: what a process says of its job, by process id; may block, raises OSError.

    ``beside``: it is another process, which can be gone.
    """

    limits: SetsLimits
    evidence_of: Callable[[int], Mapping[str, str]]
    beside: bool


def root_here(nvml: Nvml, run_dir: Path, boot_id: str) -> Root:
    """This process is root itself, or needs not be, because its GPUs are simulated."""
    return Root(Limits(nvml, Baselines(run_dir / BASELINES, boot_id)), evidence_of, beside=False)


def root_beside(run_dir: Path) -> Root:
    """``wattkeeper-actuator.service``."""
    remote = RemoteLimits(run_dir / SOCKET)
    return Root(remote, remote.evidence_of, beside=True)


def root_for_commands(nvml: Nvml, run_dir: Path, boot_id: str) -> Root:
    """For a command of root's without an agent: the actuator, where one runs, keeps the book of who wrote what."""
    remote = root_beside(run_dir)
    if (run_dir / SOCKET).exists():
        with suppress(OSError):
            remote.evidence_of(1)
            return remote
    return root_here(nvml, run_dir, boot_id)
