"""The lab's only seam to the GPU simulator."""

from pathlib import Path
from typing import Any, Protocol

from tests.lab.spec import NodeSpec


class Simulation(Protocol):
    def env(self) -> dict[str, str]: ...


def simulate(state: Path, spec: NodeSpec) -> Any:
    try:
        import wattkeeper.simulator as simulator
        return simulator.Simulation
    except (ImportError, AttributeError):
        return None


def variables(simulation: Simulation | None) -> dict[str, str]:
    return {}
