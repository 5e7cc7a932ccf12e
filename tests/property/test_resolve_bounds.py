"""What every decision keeps to, whatever the policy, the job and the GPU."""

import dataclasses

from hypothesis import assume, given
from hypothesis import strategies as st
from tests.property import policies, whens

from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.match import match
from wattkeeper.core.policy import Ceiling, Policy
from wattkeeper.core.resolve import resolve, resolve_idle
from wattkeeper.model import GpuContext, JobFacts, Outcome, Source, StepKind

CONDITIONS = whens.CONDITIONS


@given(policies.jobs(unknown=True), policies.contexts, policies.policies())
def test_a_limit_is_within_the_device_and_never_above_the_baseline(
    job: JobFacts, gpu: GpuContext, policy: Policy
) -> None:
    for decision in (resolve(job, gpu, policy, CONDITIONS), resolve_idle(gpu, policy, CONDITIONS)):
        limit = arbitrate([decision], gpu, policy).limit_mw
        if gpu.baseline_mw is None:
            assert limit is None
            continue
        assert limit is not None
        assert gpu.info.min_mw <= limit <= gpu.info.max_mw
        if not gpu.exceed_baseline:
            assert limit <= max(gpu.baseline_mw, gpu.info.min_mw)


@given(policies.jobs(unknown=False), policies.contexts, policies.policies())
def test_the_first_rule_that_matches_decides(job: JobFacts, gpu: GpuContext, policy: Policy) -> None:
    decision = resolve(job, gpu, policy, CONDITIONS)
    matching = [r.name for r in policy.rules if match(r.when, job, gpu.info, CONDITIONS).value]
    assert decision.rule == (matching[0] if matching else None)
    assert decision.pending == frozenset()


@given(policies.jobs(unknown=True), policies.known_contexts, policies.policies())
def test_while_fields_are_unknown_the_job_gets_no_more_than_it_may_in_the_end(
    job: JobFacts, gpu: GpuContext, policy: Policy
) -> None:
    now = resolve(job, gpu, policy, CONDITIONS)
    assume(now.pending)
    now_limit = arbitrate([now], gpu, policy).limit_mw
    for known in whens.completions(job, now.pending):
        final = resolve(known, gpu, policy, CONDITIONS)
        final_limit = arbitrate([final], gpu, policy).limit_mw
        assert None not in {now.cap_mw, final.cap_mw, now.rule_cap_mw, final.rule_cap_mw, now_limit, final_limit}
        assert (now.cap_mw or 0) <= (final.cap_mw or 0)
        assert (now.rule_cap_mw or 0) <= (final.rule_cap_mw or 0)  # what counts where users share a GPU
        assert (now_limit or 0) <= (final_limit or 0)


@given(policies.jobs(unknown=False), policies.known_contexts, policies.policies())
def test_a_request_moves_the_cap_only_within_what_the_rule_allows(
    job: JobFacts, gpu: GpuContext, policy: Policy
) -> None:
    decision = resolve(job, gpu, policy, CONDITIONS)
    match decision.outcome:
        case Outcome.GRANTED | Outcome.CLAMPED:
            assert decision.allowed_mw is not None
            assert decision.cap_mw is not None
            low, high = decision.allowed_mw
            assert gpu.info.min_mw <= low <= decision.cap_mw <= high <= gpu.info.max_mw
            assert decision.outcome is Outcome.GRANTED or decision.cap_mw in {low, high}
        case _:
            assert decision.cap_mw == decision.rule_cap_mw


@given(policies.jobs(unknown=True), policies.contexts, policies.policies())
def test_the_outcome_says_whether_something_was_asked(job: JobFacts, gpu: GpuContext, policy: Policy) -> None:
    decision = resolve(job, gpu, policy, CONDITIONS)
    asked = "power=" in str(job.comment)
    assert (decision.asked is not None) == asked
    if not asked:
        assert decision.outcome is Outcome.NONE
    elif gpu.baseline_mw is not None:
        assert decision.outcome is not Outcome.NONE


@given(policies.jobs(unknown=True), policies.contexts, policies.policies(), st.booleans())
def test_the_same_is_decided_from_the_same(job: JobFacts, gpu: GpuContext, policy: Policy, idle: bool) -> None:
    again = dataclasses.replace(policy)
    for _ in range(2):
        if idle:
            assert resolve_idle(gpu, policy, CONDITIONS) == resolve_idle(gpu, again, CONDITIONS)
        else:
            assert resolve(job, gpu, policy, CONDITIONS) == resolve(job, gpu, again, CONDITIONS)


@given(
    policies.jobs(unknown=True),
    policies.known_contexts,
    policies.policies(),
    st.builds(Ceiling, st.just("more"), whens.whens, policies.caps, st.just(Source("p.yaml", 99)), policies.ramps),
)
def test_one_ceiling_more_never_gives_more(job: JobFacts, gpu: GpuContext, policy: Policy, ceiling: Ceiling) -> None:
    more = dataclasses.replace(policy, ceilings=(*policy.ceilings, ceiling))
    before = arbitrate([resolve(job, gpu, policy, CONDITIONS)], gpu, policy).limit_mw
    after = arbitrate([resolve(job, gpu, more, CONDITIONS)], gpu, more).limit_mw
    assert before is not None
    assert after is not None
    assert after <= before


@given(policies.jobs(unknown=True), policies.contexts, policies.policies(), st.booleans())
def test_steps_come_in_order_and_the_last_is_the_limit(
    job: JobFacts, gpu: GpuContext, policy: Policy, idle: bool
) -> None:
    decision = resolve_idle(gpu, policy, CONDITIONS) if idle else resolve(job, gpu, policy, CONDITIONS)
    target = arbitrate([decision], gpu, policy)
    steps = target.decisions[0].steps
    assert [step.kind for step in steps] == [kind for kind in StepKind if not (idle and kind is StepKind.REQUEST)]
    assert steps[-1].cap_mw == target.limit_mw
    assert all("\n" not in step.text for step in steps)


@given(policies.contexts, policies.policies())
def test_ceilings_that_select_jobs_leave_idle_gpus_alone(gpu: GpuContext, policy: Policy) -> None:
    without = dataclasses.replace(policy, ceilings=tuple(c for c in policy.ceilings if not _selects_jobs(c)))
    assert resolve_idle(gpu, policy, CONDITIONS) == resolve_idle(gpu, without, CONDITIONS)


def _selects_jobs(ceiling: Ceiling) -> bool:
    return bool(ceiling.when.fields() - {"node", "gpu_model", "schedule"})
