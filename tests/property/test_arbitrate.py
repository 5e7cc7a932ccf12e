"""One limit from the decisions of several holders."""

import dataclasses
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.property import policies, whens

from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.policy import Policy
from wattkeeper.core.resolve import resolve
from wattkeeper.model import CeilingHit, Decision, GpuContext, GpuInfo, GpuUuid, JobFacts, JobKey, Outcome
from wattkeeper.units import Milliwatts

CONDITIONS = whens.CONDITIONS
INFO = GpuInfo(GpuUuid("GPU-1"), 0, 0, "A100", Milliwatts(250_000), Milliwatts(100_000), Milliwatts(250_000))


@st.composite
def shared(draw: st.DrawFn) -> tuple[list[Decision], GpuContext, Policy]:
    """Up to four jobs' decisions on one GPU."""
    gpu, policy = draw(policies.known_contexts), draw(policies.policies())
    jobs = draw(st.lists(policies.jobs(unknown=False), min_size=2, max_size=4))
    keyed = [dataclasses.replace(job, key=JobKey("c", number, "r0")) for number, job in enumerate(jobs)]
    return [resolve(job, gpu, policy, CONDITIONS) for job in keyed], gpu, policy


def uids(decisions: Sequence[Decision]) -> set[int]:
    return {decision.job.uid for decision in decisions if decision.job}


def fitted(value: int, gpu: GpuContext) -> int:
    top = gpu.info.max_mw
    if not gpu.exceed_baseline and gpu.baseline_mw is not None:
        top = max(gpu.info.min_mw, min(top, gpu.baseline_mw))
    return max(gpu.info.min_mw, min(top, value))


@given(shared())
def test_the_limit_is_the_highest_or_lowest_cap_under_the_lowest_ceiling(
    case: tuple[list[Decision], GpuContext, Policy],
) -> None:
    decisions, gpu, policy = case
    strangers = len(uids(decisions)) > 1
    caps = [d.rule_cap_mw if strangers else d.cap_mw for d in decisions]
    assert None not in caps
    chosen = (max if policy.shared_gpus == "highest" else min)(cap or 0 for cap in caps)
    ceilings = [hit.cap_mw for decision in decisions for hit in decision.ceilings]
    assert arbitrate(decisions, gpu, policy).limit_mw == fitted(min([chosen, *ceilings]), gpu)


@given(shared(), st.randoms(use_true_random=False))
def test_the_order_of_the_holders_does_not_matter(
    case: tuple[list[Decision], GpuContext, Policy], random: Random
) -> None:
    decisions, gpu, policy = case
    limit = arbitrate(decisions, gpu, policy).limit_mw
    random.shuffle(decisions)
    assert arbitrate(decisions, gpu, policy).limit_mw == limit


@given(shared(), st.sampled_from(policies.COMMENTS))
def test_where_users_share_a_gpu_no_request_moves_it(
    case: tuple[list[Decision], GpuContext, Policy], comment: str | None
) -> None:
    decisions, gpu, policy = case
    assume(len(uids(decisions)) > 1)
    job = decisions[0].job
    assert isinstance(job, JobFacts)
    other = resolve(dataclasses.replace(job, comment=comment), gpu, policy, CONDITIONS)
    before, after = (arbitrate([first, *decisions[1:]], gpu, policy) for first in (decisions[0], other))
    assert before.limit_mw == after.limit_mw
    outcomes = {decision.outcome for target in (before, after) for decision in target.decisions}
    assert not outcomes & {Outcome.GRANTED, Outcome.CLAMPED}


@given(shared())
def test_every_holder_is_told_the_same_end(case: tuple[list[Decision], GpuContext, Policy]) -> None:
    decisions, gpu, policy = case
    target = arbitrate(decisions, gpu, policy)
    assert [d.job for d in target.decisions] == [d.job for d in decisions]
    assert len({d.steps[-3:] for d in target.decisions}) == 1


def test_two_ceilings_of_one_name_both_count() -> None:
    """Names are unique within a policy, but nothing here may hang on it."""
    gpu = GpuContext(INFO, Milliwatts(250_000))
    decision = resolve(JobFacts(JobKey("c", 1, "r0"), 1000), gpu, Policy(), CONDITIONS)
    hits = tuple(CeilingHit("hot", Milliwatts(cap), "hot", None) for cap in (150_000, 200_000))
    target = arbitrate([dataclasses.replace(decision, ceilings=hits)], gpu, Policy())
    assert target.limit_mw == 150_000


def test_a_gpu_without_a_decision_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least its idle decision"):
        arbitrate([], GpuContext(INFO, None), Policy())
