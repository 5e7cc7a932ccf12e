"""A real Slurm cluster on one machine: munge, slurmctld, several slurmd, an agent a node, and Prometheus."""

from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.processes import LabError, missing_programs
from tests.lab.spec import LabSpec, NodeSpec
from tests.lab.waiting import wait_until

__all__ = ["Lab", "LabError", "LabSpec", "Node", "NodeSpec", "missing_programs", "wait_until"]
