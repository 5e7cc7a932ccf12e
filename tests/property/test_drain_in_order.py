"""Events that waited in the spool come to the same, read all at once or one by one."""

from hypothesis import given
from hypothesis import strategies as st
from tests.one_node import OneNode, gpu

from wattkeeper.config.policy import parse_policies
from wattkeeper.slurm.hook_event import EventKind

POLICY, _ = parse_policies(
    [("p.yaml", "version: 1\ncaps:\n  - {name: everyone, cap: 500W, requests: {min: min, max: baseline}}\n")]
)

_Event = tuple[EventKind, int, dict[str, str]]

_events = st.tuples(
    st.sampled_from(list(EventKind)),
    st.integers(1, 4),
    st.builds(
        lambda gpus, watts, run: {
            "SLURM_JOB_GPUS": gpus,
            "SLURM_JOB_COMMENT": f"power={watts}W",
            "SLURM_JOB_RESTART_COUNT": run,
        },
        st.sampled_from(["0", "1", "0,1"]),
        st.sampled_from([250, 300, 700]),
        st.sampled_from(["0", "1"]),
    ),
)


def outcome(node: OneNode) -> object:
    """Who holds what, which runs are over, and what the GPUs read once the agent has looked."""
    node.tick()
    held = [(holding.job.key, holding.gpu) for holding in node.state.holdings]
    limits = {uuid: card.reading.requested_mw for uuid, card in node.gpus.gpus.items()}
    return held, list(node.state.over), limits, node.tally.hook_events


@given(st.lists(_events, max_size=3), st.lists(_events, max_size=8))
def test_at_once_is_as_one_by_one(before: list[_Event], spooled: list[_Event]) -> None:
    together, apart = OneNode(gpu(0), gpu(1), policy=POLICY), OneNode(gpu(0), gpu(1), policy=POLICY)
    for node in (together, apart):
        for event in before:
            node.post(*event)
        node.tick()
        node.go_on(10)
    together.drain_at_once(spooled)
    moments = [apart.ago((len(spooled) - number) / 10) for number in range(len(spooled))]
    for event, moment in zip(spooled, moments, strict=True):
        apart.post(*event, moment)
    assert outcome(together) == outcome(apart)
