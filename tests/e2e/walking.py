"""What the tests of whole walks share: a job that tells what it sees, and looks at its node from outside."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab import Lab, Node, wait_until

BASELINE_W = 700.0  # an H100's default, which is what the lab's nodes are found with


class Gate:
    """A file that a job waits for, so that a test says when the job goes on."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.path: Path = lab.files.out / f"gate-{name}"
        self.path.unlink(missing_ok=True)

    @property
    def wait(self) -> str:
        """Shell that waits until the gate is open."""
        return f"until [ -e {self.path} ]; do sleep 0.05; done"

    def open(self) -> None:
        self.path.touch()


def looks(text: str) -> list[dict[str, float]]:
    """Every look at a node's GPUs in a job's output: the requested limit in watts by UUID.

    The last line of an output that is read while it grows may not be whole yet.
    """
    whole, _, _ = text.rpartition("\n")
    lines = [line for line in whole.splitlines() if line.startswith('[{"index"')]
    return [{gpu["uuid"]: gpu["requested_w"] for gpu in json.loads(line)} for line in lines]


def wait_looks(lab: Lab, job: int | str, count: int = 1) -> list[dict[str, float]]:
    """The job's looks, once there are as many; the first is what its first line saw."""
    wait_until(lambda: len(looks(lab.output(job))) >= count, 15, f"job {job} looked", note=False)
    return looks(lab.output(job))


def by_minor(node: Node, seen: dict[str, float]) -> dict[int, float]:
    """A look by minor number; every GPU of the node, and no other's, must be in it."""
    minors = {gpu.uuid: gpu.minor for gpu in node.simulation.show().gpus}
    assert set(seen) == set(minors)
    return dict(sorted((minors[uuid], limit) for uuid, limit in seen.items()))


def limits(*watts: float) -> dict[int, float]:
    """`limits(250, 250, 700, 700)`: those of GPU 0, 1, 2, 3."""
    return dict(enumerate(map(float, watts)))


def wait_limits(node: Node, *watts: float, what: str = "", bound_s: float = 2) -> None:
    """Waits until another NVML client reads these limits on the node's GPUs, in order of minor number."""
    expected = limits(*watts)
    try:
        wait_until(lambda: node.limits_w() == expected, bound_s, what, note=bool(what))
    except AssertionError as error:
        raise AssertionError(f"{node.name} reads {node.limits_w()}, not {expected}\n{node.agent.log_text()}") from error


def report(node: Node, job: int) -> dict[str, Any]:
    """The agent's own word about a job."""
    found: dict[str, Any] = node.agent.get(f"/v1/jobs/{job}")
    return found


def left_as_found(lab: Lab) -> Iterator[Lab]:
    """Gives the lab to a test, and takes it back without jobs, at its baselines, and with no crash in any log."""
    logged = {name: len(node.agent.log_text()) for name, node in lab.nodes.items()}
    at_first = {name: node.limits_w() for name, node in lab.nodes.items()}
    yield lab
    lab.cancel_all()
    lab.wait_idle()
    for name, node in lab.nodes.items():
        wait_limits(node, *at_first[name].values())
        news = node.agent.log_text()[logged[name] :]
        assert "Traceback" not in news, news
