"""Who holds a GPU, whatever the order in which events arrive and however often."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.holdings import Moment, Transition, Verdict, begin, end
from wattkeeper.model import GpuUuid, Holding, JobFacts, JobKey, Sharing

GPUS = {GpuUuid(f"GPU-{number}"): Sharing.WHOLE if number < 2 else Sharing.SHARED for number in range(3)}
A, B, S = GPUS


def key(job_id: int, run: str = "r0") -> JobKey:
    return JobKey("c", job_id, run)


def at(mono: float) -> Moment:
    return Moment(1e9 + mono, mono)


class Node:
    """What the agent keeps: holdings and ends."""

    def __init__(self) -> None:
        self.holdings: tuple[Holding, ...] = ()
        self.over: dict[JobKey, float] = {}

    def take(self, transition: Transition, mono: float) -> Verdict:
        assert set(transition.removed) <= set(self.holdings)
        kept = tuple(holding for holding in self.holdings if holding not in transition.removed)
        self.holdings = (*kept, *transition.added)
        for holding in transition.added:
            self.over.pop(holding.job.key, None)
        self.over |= dict.fromkeys(transition.over, mono)
        return transition.verdict

    def begin(self, job: JobKey, *gpus: GpuUuid, mono: float) -> Verdict:
        facts = JobFacts(job, 1000, gpus=len(gpus))
        return self.take(begin(facts, {gpu: GPUS[gpu] for gpu in gpus}, at(mono), self.holdings, self.over), mono)

    def end(self, job: JobKey, mono: float) -> Verdict:
        return self.take(end(job, at(mono), self.holdings, self.over), mono)

    def holders(self, gpu: GpuUuid) -> list[JobKey]:
        return [holding.job.key for holding in self.holdings if holding.gpu == gpu]


@dataclass(frozen=True)
class Event:
    """A start with GPUs, or an end without."""

    job: JobKey
    gpus: tuple[GpuUuid, ...]
    mono: float

    def tell(self, node: Node) -> Verdict:
        if self.gpus:
            return node.begin(self.job, *self.gpus, mono=self.mono)
        return node.end(self.job, self.mono)


_events = st.lists(
    st.builds(
        Event,
        st.builds(key, st.integers(1, 3), st.sampled_from(["r0", "r1", "r2", "s9ab", "s9cd"])),
        st.just(()) | st.lists(st.sampled_from(list(GPUS)), min_size=1, unique=True).map(tuple),
        st.integers(0, 20).map(float),
    ),
    max_size=25,
)


@given(_events)
def test_in_any_order_a_gpu_has_one_holder_a_job_one_run_and_an_end_is_an_end(events: list[Event]) -> None:
    node = Node()
    for event in events:
        event.tell(node)
        for gpu, share in GPUS.items():
            holders = node.holders(gpu)
            assert len(holders) == len(set(holders))
            assert share is Sharing.SHARED or len(holders) <= 1
        runs = {holding.job.key for holding in node.holdings}
        assert len({run.job_id for run in runs}) == len(runs)
        assert not runs & node.over.keys()


@given(_events)
def test_an_event_told_again_changes_nothing(events: list[Event]) -> None:
    node = Node()
    for event in events:
        event.tell(node)
        before = node.holdings, dict(node.over)
        assert event.tell(node) is not Verdict.STARTED
        assert (node.holdings, node.over) == before


@given(_events)
def test_nothing_that_is_over_begins_again(events: list[Event]) -> None:
    node = Node()
    for event in events:
        was_over = event.job in node.over
        verdict = event.tell(node)
        assert not (was_over and verdict in {Verdict.STARTED, Verdict.ENDED})


@given(_events, st.integers(0, 20))
def test_an_epilog_ends_nothing_that_began_after_it(events: list[Event], mono: int) -> None:
    node = Node()
    for event in events:
        event.tell(node)
    began = {
        run: min(h.since_mono for h in node.holdings if h.job.key == run) for run in {h.job.key for h in node.holdings}
    }
    later = {holding for holding in node.holdings if began[holding.job.key] > mono}
    others = {holding for holding in node.holdings if holding.job.key.job_id != 1}
    for run in ("r0", "r1", "r2", "s9ab"):
        ended = end(key(1, run), at(mono), node.holdings, node.over)
        assert not set(ended.removed) & (later | others)


def test_a_start_and_its_end() -> None:
    node = Node()
    assert node.begin(key(1), A, B, mono=1) is Verdict.STARTED
    assert node.holders(A) == node.holders(B) == [key(1)]
    assert node.end(key(1), 2) is Verdict.ENDED
    assert node.holdings == ()
    assert node.over == {key(1): 2}
    assert node.end(key(1), 2) is Verdict.DUPLICATE


def test_a_run_that_was_given_another_gpu_ends_on_both() -> None:
    """An Epilog that began at the moment of the second Prolog came after the first."""
    node = Node()
    node.begin(key(1), A, mono=1)
    node.begin(key(1), A, B, mono=2)
    assert node.end(key(1), 2) is Verdict.ENDED
    assert node.holdings == ()


def test_a_start_after_its_own_end_is_late() -> None:
    node = Node()
    assert node.end(key(1), 2) is Verdict.UNKNOWN_JOB
    assert node.begin(key(1), A, mono=1) is Verdict.LATE
    assert node.holdings == ()


def test_a_new_holder_ends_the_old_one_on_all_its_gpus() -> None:
    node = Node()
    node.begin(key(1), A, B, mono=1)
    facts = JobFacts(key(2), 1000, gpus=1)
    transition = begin(facts, {A: Sharing.WHOLE}, at(5), node.holdings, node.over)
    assert transition.superseded == (key(1),)
    node.take(transition, 5)
    assert (node.holders(A), node.holders(B)) == ([key(2)], [])
    assert node.end(key(1), 6) is Verdict.DUPLICATE
    assert node.holders(A) == [key(2)]


def test_shards_share() -> None:
    node = Node()
    node.begin(key(1), S, mono=1)
    node.begin(key(2), S, mono=2)
    assert node.holders(S) == [key(1), key(2)]
    node.end(key(1), 3)
    assert node.holders(S) == [key(2)]


@pytest.mark.parametrize(("begun", "ended"), [("r0", "s9ab"), ("s9ab", "r0"), ("r1", "s9ab"), ("seen", "r0")])
def test_an_epilog_ends_the_run_that_its_prolog_called_otherwise(begun: str, ended: str) -> None:
    """Slurm was upgraded, or taken back, while the job ran."""
    node = Node()
    node.begin(key(1, begun), A, mono=1)
    assert node.end(key(1, ended), 5) is Verdict.ENDED
    assert node.holdings == ()
    assert node.end(key(1, ended), 6) is not Verdict.ENDED
    assert node.begin(key(1, begun), A, mono=1) is Verdict.LATE


def test_an_epilog_that_names_the_next_run_leaves_that_one_its_start_however_often_it_is_told() -> None:
    """With restart counts it does; with SLUIDs it might."""
    node = Node()
    node.begin(key(1, "s9ab"), A, mono=1)
    assert node.end(key(1, "s9cd"), 3) is Verdict.ENDED
    node.end(key(1, "s9cd"), 4)
    assert node.begin(key(1, "s9cd"), A, mono=5) is Verdict.STARTED
    assert node.end(key(1, "s9cd"), 3) is Verdict.LATE  # from the spool
    assert node.holders(A) == [key(1, "s9cd")]


@pytest.mark.parametrize(("first", "second"), [("s9ab", "s9cd"), ("r0", "s9cd"), ("r0", "r1")])
def test_the_epilog_of_a_run_that_is_over_never_ends_the_next(first: str, second: str) -> None:
    for lost_epilog in (True, False):
        node = Node()
        node.begin(key(1, first), A, mono=1)
        if not lost_epilog:
            node.end(key(1, first), 3)
        node.begin(key(1, second), A, mono=5)
        assert node.end(key(1, first), 9) is Verdict.DUPLICATE
        assert node.holders(A) == [key(1, second)]


def test_a_late_epilog_of_run_0_never_ends_run_1() -> None:
    for lost_epilog in (True, False):
        node = Node()
        if lost_epilog:
            node.begin(key(1), A, mono=1)
        node.begin(key(1, "r1"), A, mono=5)
        node.end(key(1, "r0"), 9)
        assert node.holders(A) == [key(1, "r1")]


def test_the_epilog_of_a_requeue_carries_the_next_count() -> None:
    node = Node()
    node.begin(key(1, "r0"), A, mono=1)
    assert node.end(key(1, "r1"), 3) is Verdict.ENDED
    assert node.holdings == ()
    assert node.over == {key(1, "r0"): 3}
    assert node.begin(key(1, "r1"), A, mono=5) is Verdict.STARTED
    assert node.end(key(1, "r1"), 3) is Verdict.LATE  # sent again by the spool
    assert node.holders(A) == [key(1, "r1")]
    assert node.end(key(1, "r1"), 9) is Verdict.ENDED


def test_the_epilog_of_a_requeue_without_its_prolog_leaves_the_next_run_its_start() -> None:
    node = Node()
    assert node.end(key(1, "r1"), 3) is Verdict.UNKNOWN_JOB
    assert node.begin(key(1, "r1"), A, mono=5) is Verdict.STARTED


def test_a_prolog_of_run_0_after_run_1_has_come_and_gone_is_late() -> None:
    node = Node()
    node.begin(key(1, "r1"), A, mono=5)
    assert node.begin(key(1, "r0"), A, mono=1) is Verdict.LATE
    node.end(key(1, "r1"), 8)
    assert node.begin(key(1, "r0"), A, mono=1) is Verdict.LATE
    assert node.holdings == ()


def test_what_a_look_up_tells_later_keeps_the_time_of_the_start() -> None:
    node = Node()
    node.begin(key(1), A, mono=1)
    facts = replace(node.holdings[0].job, qos="high")
    node.take(begin(facts, {A: Sharing.WHOLE}, at(7), node.holdings, node.over), 7)
    assert [(h.job.qos, h.since_mono) for h in node.holdings] == [("high", 1.0)]
