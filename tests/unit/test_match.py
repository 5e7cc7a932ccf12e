"""Selectors in three values: true, false, not yet known."""

import dataclasses

import pytest

from wattkeeper.core.match import Match, features, match, selects_jobs
from wattkeeper.core.policy import Compare, Glob, Hosts, Pattern, Selector, When
from wattkeeper.model import UNKNOWN, Conditions, GpuInfo, GpuUuid, JobFacts, JobKey
from wattkeeper.units import Milliwatts

CONDITIONS = Conditions(now_at=0.0, node="gpu07")
JOB = JobFacts(
    key=JobKey("c", 7, "r0"),
    uid=1000,
    user="alice",
    account="ml-vision",
    partition="gpu",
    constraint="[a100*2&(nvlink|rack1)]",
    num_nodes=2,
    gpus=4,
    node="gpu07",
)
GPU = GpuInfo(
    uuid=GpuUuid("GPU-1"),
    minor=0,
    index=0,
    model="NVIDIA A100-SXM4-40GB",
    default_mw=Milliwatts(400_000),
    min_mw=Milliwatts(100_000),
    max_mw=Milliwatts(400_000),
)


def on(field: str, *patterns: Pattern | str) -> When:
    return When((Selector(field, tuple(Glob(p) if isinstance(p, str) else p for p in patterns)),))


def value(when: When, job: JobFacts | None = JOB, gpu: GpuInfo | None = GPU) -> bool | None:
    return match(when, job, gpu, CONDITIONS).value


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (When(), True),
        (on("user", "alice"), True),
        (on("user", "Alice"), False),
        (on("user", "bob", "al*"), True),
        (on("account", "ml-*"), True),
        (on("constraint", "a100"), True),
        (on("constraint", "rack?"), True),
        (on("constraint", "a100*2"), False),
        (on("constraint", "h100"), False),
        (on("gpus", Compare(">=", 2)), True),
        (on("gpus", Compare("<", 4), Compare("==", 4)), True),
        (on("gpus", Compare("!=", 4)), False),
        (on("num_nodes", Compare("<=", 1)), False),
        (on("node", Hosts(frozenset({"gpu07"}))), True),
        (on("node", "gpu0*"), True),
        (on("node", "cpu*"), False),
        (on("gpu_model", "*a100*"), True),
        (on("gpu_model", "*V100*"), False),
    ],
)
def test_selectors(when: When, expected: bool) -> None:
    assert value(when) is expected
    assert value(When(negated=when)) is (not expected)


def test_all_selectors_must_fit() -> None:
    both = When((*on("user", "alice").selectors, *on("partition", "gpu").selectors))
    assert value(both) is True
    assert value(When(both.selectors, negated=on("account", "ml-*"))) is False
    assert value(When(both.selectors, negated=on("account", "bio"))) is True


def test_a_field_not_yet_known_leaves_selector_and_negation_open() -> None:
    when = on("qos", "high")
    assert JOB.qos is UNKNOWN
    assert match(when, JOB, GPU, CONDITIONS) == Match(None, frozenset({"qos"}))
    assert match(When(negated=when), JOB, GPU, CONDITIONS) == Match(None, frozenset({"qos"}))


def test_a_known_field_can_settle_it_before_the_unknown_one() -> None:
    when = When((*on("qos", "high").selectors, *on("partition", "cpu").selectors))
    assert match(when, JOB, GPU, CONDITIONS) == Match(False)
    open_still = When((*on("qos", "high").selectors, *on("job_name", "x").selectors, *on("partition", "gpu").selectors))
    assert match(open_still, JOB, GPU, CONDITIONS) == Match(None, frozenset({"qos", "job_name"}))


def test_an_absent_field_fits_nothing_and_not_of_it_everything() -> None:
    assert JOB.reservation is None
    assert value(on("reservation", "*")) is False
    assert value(When(negated=on("reservation", "*"))) is True


def test_a_field_no_release_has_is_not_known() -> None:
    assert match(on("group", "staff"), JOB, GPU, CONDITIONS) == Match(None, frozenset({"group"}))


def test_an_idle_gpu_has_a_node_and_a_model_and_no_job() -> None:
    assert value(on("node", "gpu07"), job=None) is True
    assert value(on("gpu_model", "*A100*"), job=None) is True
    assert value(on("user", "*"), job=None) is False
    assert value(on("gpu_model", "*"), gpu=None) is False


@pytest.mark.parametrize(
    ("constraint", "names"),
    [
        ("a100", ("a100",)),
        ("a100&nvlink|h100", ("a100", "nvlink", "h100")),
        ("[rack1*2&rack2*4]", ("rack1", "rack2")),
        ("(a|b)*2&c", ("a", "b", "c")),
        ("", ()),
    ],
)
def test_reads_the_features_of_a_constraint(constraint: str, names: tuple[str, ...]) -> None:
    assert features(constraint) == names


def test_tells_ceilings_that_hold_for_idle_gpus() -> None:
    assert not selects_jobs(When())
    assert not selects_jobs(on("node", "a"))
    assert not selects_jobs(When(on("gpu_model", "*").selectors, negated=on("schedule", "x")))
    assert selects_jobs(on("user", "a"))
    assert selects_jobs(When(negated=When(negated=on("partition", "a"))))


def test_a_group_fits_where_any_group_of_the_owner_does() -> None:
    job = dataclasses.replace(JOB, groups=frozenset({"staff", "ml-vision"}))
    assert value(on("group", "ml-*"), job) is True
    assert value(on("group", "video", "staff"), job) is True
    assert value(on("group", "ml"), job) is False
    assert value(When(negated=on("group", "ml-*")), job) is False
    assert value(When(negated=on("group", "video")), job) is True
    nobody = dataclasses.replace(JOB, groups=frozenset())
    assert value(on("group", "*"), nobody) is False
    assert value(When(negated=on("group", "*")), nobody) is True


def test_groups_not_known_yet_leave_it_open_either_way() -> None:
    assert match(on("group", "staff"), JOB, GPU, CONDITIONS).pending == {"group"}
    assert match(When(negated=on("group", "staff")), JOB, GPU, CONDITIONS).pending == {"group"}
    assert value(on("group", "staff"), None) is False
    assert selects_jobs(on("group", "staff"))
