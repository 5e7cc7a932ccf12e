"""Hooks, answers, ticks, restarts and reloads in any order: careful while something is open, right in the end."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from tests.asking_node import UID, AskingNode

from wattkeeper.config.policy import parse_policies
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.policy import Policy
from wattkeeper.core.resolve import resolve
from wattkeeper.model import UNKNOWN, Conditions, JobFacts, JobText
from wattkeeper.protocols import Looked, LookupProblem
from wattkeeper.units import Milliwatts

GPUS = (0, 1)
QOS: tuple[JobText, ...] = ("high", "low", None)
NAMES: tuple[JobText, ...] = ("sweep-1", "train")
TRUTH = [Looked(job_id, UID, *known) for job_id, known in enumerate(product(QOS, NAMES), start=1)]
JOBS = [looked.job_id for looked in TRUTH]
PLAIN = "caps:\n  - {name: all, cap: 500W}\n"
BY_QOS = """\
caps:
  - {name: high, when: {qos: high}, cap: 600W, requests: {min: min, max: 650W}}
  - {name: low, when: {qos: low}, cap: 250W}
  - {name: rest, cap: 400W, requests: {min: min, max: 450W}}
"""
BY_BOTH = """\
caps:
  - {name: sweeps, when: {job_name: "sweep-*", not: {qos: high}}, cap: 350W}
  - {name: not-low, when: {not: {qos: low}}, cap: 550W}
  - {name: rest, cap: 300W}
ceilings:
  - {name: high, when: {qos: high, job_name: train}, cap: 450W}
"""


def read(text: str) -> Policy:
    return parse_policies([("p.yaml", f"version: 1\n{text}")])[0]


POLICIES = [read(text) for text in (PLAIN, BY_QOS, BY_BOTH)]

steps = st.one_of(
    st.tuples(
        st.just("prolog"),
        st.sampled_from(JOBS),
        st.sampled_from(["0", "1", "0,1"]),
        st.sampled_from(["", "power=650W", "power=220W"]),
    ),
    st.tuples(st.just("epilog"), st.sampled_from(JOBS)),
    st.tuples(st.just("tell"), st.sampled_from(JOBS)),
    st.tuples(st.just("fail"), st.sampled_from(JOBS), st.sampled_from(list(LookupProblem))),
    st.tuples(st.just("advance"), st.sampled_from([1.0, 10.0, 100.0])),
    st.tuples(st.just("tick")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("reload"), st.sampled_from(POLICIES)),
)


def do(node: AskingNode, step: tuple[object, ...]) -> None:
    match step:
        case ("prolog", int(job_id), str(gpus), str(comment)):
            node.prolog(job_id, gpus, SLURM_JOB_COMMENT=comment)
        case ("epilog", int(job_id)):
            node.epilog(job_id)
        case ("tell", int(job_id)):
            node.tell(job_id)
        case ("fail", int(job_id), LookupProblem() as problem):
            node.fail(job_id, problem)
        case ("advance", float(seconds)):
            node.advance(seconds)
        case ("tick",):
            node.tick()
        case ("restart",):
            node.restart()
        case ("reload", Policy() as policy):
            node.reload(policy)


def completions(job: JobFacts) -> Iterator[JobFacts]:
    """The job with every answer that may come to what is open."""
    for qos, name in product(QOS, NAMES):
        yield replace(
            job, qos=qos if job.qos is UNKNOWN else job.qos, job_name=name if job.job_name is UNKNOWN else job.job_name
        )


def cap_mw(node: AskingNode, job: JobFacts, minor: int) -> Milliwatts:
    state = node.node.state
    gpu = next(gpu for gpu in state.gpus.values() if gpu.info.minor == minor)
    conditions = Conditions(node.clock.wall(), state.node, zone=state.zone)
    decision = resolve(job, state.context(gpu), state.policy, conditions)
    limit = arbitrate([decision], state.context(gpu), state.policy).limit_mw
    assert limit is not None
    return limit


def check(node: AskingNode) -> None:
    """Each GPU has what all possible answers allow at least, and nobody asks for what has ended."""
    for minor in GPUS:
        holders = [h.job for h in node.node.state.holdings if h.gpu == f"GPU-{minor}"]
        if not holders:
            assert node.limit_w(minor) == 700
            continue
        (job,) = holders
        lowest = min(cap_mw(node, known, minor) for known in completions(job))
        assert node.limit_w(minor) * 1000 == lowest
    assert node.slurm.waiting() <= node.held()


@given(st.sampled_from(POLICIES), st.lists(steps, max_size=25))
def test_careful_until_all_is_known_and_right_then(policy: Policy, scene: list[tuple[object, ...]]) -> None:
    node = AskingNode(policy)
    node.slurm.truth = {looked.job_id: looked for looked in TRUTH}
    try:
        for step in scene:
            do(node, step)
            check(node)
        for _ in range(3):
            node.advance(100)
            for job_id in JOBS:
                node.tell(job_id)
        check(node)
        fields = node.node.state.policy.fields()
        for holding in node.node.state.holdings:
            looked, job = node.slurm.truth[holding.job.key.job_id], holding.job
            minor = int(holding.gpu.removeprefix("GPU-"))
            full = replace(job, qos=looked.qos, job_name=looked.job_name)
            assert node.limit_w(minor) * 1000 == cap_mw(node, full, minor)
            assert "qos" not in fields or job.qos == looked.qos
        kept = {(h.job.key, h.gpu): h.job for h in node.node.store.load().holdings}
        assert kept == {(h.job.key, h.gpu): h.job for h in node.node.state.holdings}
    finally:
        node.close()
