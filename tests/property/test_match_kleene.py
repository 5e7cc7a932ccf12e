"""Matching is Kleene's logic: it says *unknown* where a field still to come could tip it, and never else too little."""

import dataclasses

from hypothesis import given
from tests.property.whens import CONDITIONS, completions, field_of, gpus, jobs, whens

from wattkeeper.core.match import match
from wattkeeper.core.policy import When
from wattkeeper.model import UNKNOWN, GpuInfo, JobFacts


def value(when: When, job: JobFacts, gpu: GpuInfo) -> bool | None:
    return match(when, job, gpu, CONDITIONS).value


@given(whens, jobs(unknown=False), gpus)
def test_what_is_known_is_decided(when: When, job: JobFacts, gpu: GpuInfo) -> None:
    assert value(when, job, gpu) is not None


@given(whens, jobs(unknown=True), gpus)
def test_not_turns_the_value_and_not_not_gives_it_back(when: When, job: JobFacts, gpu: GpuInfo) -> None:
    found = match(when, job, gpu, CONDITIONS)
    turned = match(When(negated=when), job, gpu, CONDITIONS)
    assert turned.value is (None if found.value is None else not found.value)
    assert turned.pending == found.pending
    assert match(When(negated=When(negated=when)), job, gpu, CONDITIONS) == found


@given(whens, jobs(unknown=True), gpus)
def test_what_is_decided_stays_so_however_the_unknown_turns_out(when: When, job: JobFacts, gpu: GpuInfo) -> None:
    found = match(when, job, gpu, CONDITIONS)
    assert (found.value is None) is bool(found.pending)
    assert all(field_of(job, name) is UNKNOWN for name in found.pending)
    if found.value is not None:
        assert all(value(when, job_then, gpu) is found.value for job_then in completions(job, when.fields()))


@given(whens, jobs(unknown=True), gpus)
def test_pending_fields_settle_it(when: When, job: JobFacts, gpu: GpuInfo) -> None:
    pending = match(when, job, gpu, CONDITIONS).pending
    for job_then in completions(job, pending):
        assert value(when, job_then, gpu) is not None


@given(whens, jobs(unknown=True), gpus)
def test_an_unknown_selector_alone_can_go_either_way_or_is_absent(when: When, job: JobFacts, gpu: GpuInfo) -> None:
    """With one selector unknown and nothing else about its field, some completion differs from another.

    (With several selectors Kleene's logic may be more careful than brute force: `x` and `not x` stay unknown.)
    """
    for selector in when.selectors:
        alone = When((selector,))
        if value(alone, job, gpu) is None:
            outcomes = {value(alone, job_then, gpu) for job_then in completions(job, alone.fields())}
            assert False in outcomes


@given(whens, jobs(unknown=False), gpus)
def test_all_selectors_together_are_their_conjunction(when: When, job: JobFacts, gpu: GpuInfo) -> None:
    parts = [value(When((selector,)), job, gpu) for selector in when.selectors]
    if when.negated is not None:
        parts.append(not value(when.negated, job, gpu))
    assert value(when, job, gpu) is all(parts)
    assert value(dataclasses.replace(when, selectors=when.selectors[::-1]), job, gpu) is all(parts)
