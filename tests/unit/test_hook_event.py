"""Hooks' environments as events. The variables are those of Slurm 22.05's hooks, see docs/decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.model import UNKNOWN
from wattkeeper.slurm.hook_event import MAX_ENVIRONMENT, EventError, EventKind, parse_environment, parse_event

PROLOG = {
    "CUDA_VISIBLE_DEVICES": "0,1",
    "SLURMD_NODENAME": "node1",
    "SLURM_CLUSTER_NAME": "lab",
    "SLURM_JOB_ACCOUNT": "ml",
    "SLURM_JOB_COMMENT": "power=250W",
    "SLURM_JOB_CONSTRAINTS": "h100",
    "SLURM_JOB_GPUS": "0,1",
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_PARTITION": "lowpower",
    "SLURM_JOB_RESTART_COUNT": "1",
    "SLURM_JOB_UID": "1000",
    "SLURM_JOB_USER": "alice",
}


def raw(environment: dict[str, str]) -> bytes:
    return b"".join(f"{name}={value}\0".encode() for name, value in environment.items())


def test_a_prolog_tells_all_that_policy_asks_of_the_hook() -> None:
    event = parse_event(EventKind.PROLOG, raw(PROLOG))
    job = event.job
    assert (job.key.cluster, job.key.job_id, job.key.run) == ("lab", 12, "r1")
    assert (job.uid, job.user, job.account, job.partition) == (1000, "alice", "ml", "lowpower")
    assert (job.constraint, job.comment, job.num_nodes, job.node) == ("h100", "power=250W", 2, "node1")
    assert (event.gpus, event.visible) == ("0,1", "0,1")


def test_what_hooks_never_carry_is_unknown_and_what_this_one_lacks_is_absent() -> None:
    job = parse_event(EventKind.PROLOG, raw({k: v for k, v in PROLOG.items() if k != "SLURM_JOB_ACCOUNT"})).job
    assert job.account is None
    assert job.job_name is UNKNOWN


def test_a_newline_in_the_comment_forges_nothing() -> None:
    forged = raw({**PROLOG, "SLURM_JOB_COMMENT": "power=250W\nSLURM_JOB_GPUS=0,1,2,3"})
    event = parse_event(EventKind.PROLOG, forged)
    assert event.gpus == "0,1"
    assert event.job.comment == "power=250W\nSLURM_JOB_GPUS=0,1,2,3"


def test_the_sluid_names_the_run_where_slurm_gives_one() -> None:
    assert parse_event(EventKind.EPILOG, raw({**PROLOG, "SLURM_JOB_SLUID": "s9ABC"})).job.key.run == "s9ABC"


@pytest.mark.parametrize("missing", ["SLURM_JOB_ID", "SLURM_JOB_UID"])
def test_what_is_no_hook_is_refused_by_the_name_of_what_it_lacks(missing: str) -> None:
    with pytest.raises(EventError, match=missing):
        parse_event(EventKind.PROLOG, raw({k: v for k, v in PROLOG.items() if k != missing}))


def test_an_environment_over_the_limit_is_refused() -> None:
    with pytest.raises(EventError, match="over the limit"):
        parse_environment(b"A=" + b"x" * MAX_ENVIRONMENT)


@given(st.binary(max_size=400))
def test_any_bytes_are_an_event_or_one_clear_error(junk: bytes) -> None:
    try:
        parse_event(EventKind.EPILOG, junk)
    except EventError as error:
        assert "\n" not in str(error)


def test_a_hook_that_has_the_qos_tells_it() -> None:
    """From Slurm 26.05 on."""
    assert parse_event(EventKind.PROLOG, raw({**PROLOG, "SLURM_JOB_QOS": "high"})).job.qos == "high"
    assert parse_event(EventKind.PROLOG, raw({**PROLOG, "SLURM_JOB_QOS": ""})).job.qos is UNKNOWN
