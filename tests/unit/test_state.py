"""What the agent keeps in mind, and for how long."""

from wattkeeper.agent.state import State
from wattkeeper.config.settings import Settings
from wattkeeper.core.policy import Policy
from wattkeeper.ledger.schema import OVER_KEPT
from wattkeeper.model import JobKey


def test_the_oldest_ended_runs_are_forgotten_first() -> None:
    state = State(Settings(), Policy(), "node1")
    for job_id in range(OVER_KEPT + 10):
        state.note_over([JobKey("lab", job_id, "r0")], float(job_id))
    assert len(state.over) == OVER_KEPT
    assert JobKey("lab", 9, "r0") not in state.over
    assert JobKey("lab", 10, "r0") in state.over
    assert JobKey("lab", OVER_KEPT + 9, "r0") in state.over
