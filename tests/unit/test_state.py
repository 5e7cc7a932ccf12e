"""What the agent keeps in mind, and for how long."""

from wattkeeper.agent.state import MOST_OVER, State
from wattkeeper.config.settings import Settings
from wattkeeper.core.policy import Policy
from wattkeeper.model import JobKey


def test_the_oldest_ended_runs_are_forgotten_first() -> None:
    state = State(Settings(), Policy(), "node1")
    for job_id in range(MOST_OVER + 10):
        state.note_over([JobKey("lab", job_id, "r0")])
    assert len(state.over) == MOST_OVER
    assert JobKey("lab", 9, "r0") not in state.over
    assert JobKey("lab", 10, "r0") in state.over
    assert JobKey("lab", MOST_OVER + 9, "r0") in state.over
