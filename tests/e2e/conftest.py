"""A lab without agents, for what concerns Slurm, the hooks and the lab itself."""

from collections.abc import Iterator

import pytest

from tests.e2e.agents import one_node
from tests.e2e.walking import left_as_found
from tests.lab import Lab, LabSpec, NodeSpec

PLAIN, SHARDS, UPPER = 1, 2, 3  # the nodes of `bare_lab`


@pytest.fixture(scope="session")
def _bare_lab() -> Iterator[Lab]:
    nodes = (NodeSpec(), NodeSpec(shards=8), NodeSpec(minors=(2, 3), nvml_order=(1, 0, 3, 2), initial_limit_w=600))
    with Lab(LabSpec(nodes=nodes, agents=False)) as shared:
        yield shared


@pytest.fixture
def bare_lab(_bare_lab: Lab) -> Iterator[Lab]:
    """Three nodes of four H100: a plain one, one with 8 shards, and one that gives Slurm only nvidia2 and nvidia3.

    Nobody listens to the hooks, so every event waits in its node's spool, which is empty at the start of a test.
    """
    for node in _bare_lab.nodes.values():
        node.clear_spool()
    yield _bare_lab
    _bare_lab.cancel_all()
    _bare_lab.wait_idle()


@pytest.fixture
def quiet_lab(lab: Lab) -> Iterator[Lab]:
    """The lab of the whole run, free of jobs and with its limits as found when the test has ended."""
    yield from left_as_found(lab)


@pytest.fixture(scope="module")
def one_agent() -> Iterator[Lab]:
    """One node with an agent that ticks fast, for all tests of a module; each brings it into the state it needs."""
    with one_node() as lab:
        yield lab
