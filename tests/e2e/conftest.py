"""A lab without agents, for what concerns Slurm, the hooks and the lab itself."""

from collections.abc import Iterator

import pytest

from tests.e2e.agents import afresh, one_node
from tests.e2e.attackers import Victim, victim, watched
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


@pytest.fixture
def alone(one_agent: Lab) -> Iterator[Lab]:
    """A lab of one node whose agent is as on the first day, free of jobs when the test has ended."""
    yield from afresh(one_agent)


@pytest.fixture(scope="module")
def actuator() -> Iterator[Victim]:
    """An actuator to be attacked."""
    with victim() as one:
        yield one


@pytest.fixture
def one(actuator: Victim) -> Iterator[Victim]:
    """The same, which is to be as it was and to answer an honest client when the test has ended."""
    with watched(actuator):
        yield actuator
