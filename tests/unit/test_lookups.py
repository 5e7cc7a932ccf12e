"""Look-ups of what hooks do not tell: when they are made, how long a Prolog waits, and what becomes of late ones."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fake_slurm import FakeLookup

from wattkeeper.agent.lookup import FIRST_PAUSE_S, NODES_PER_S, Lookups, merge, missing, slot_s
from wattkeeper.agent.tally import Tally
from wattkeeper.core.policy import BASELINE_CAP, Glob, Policy, Rule, Selector, When
from wattkeeper.model import UNKNOWN, JobFacts, JobKey, Source
from wattkeeper.protocols import JobLookup, LookupProblem
from wattkeeper.system.clock import SystemClock
from wattkeeper.system.groups import Groups

ENOUGH_S = 60.0
"""Patience of a Prolog that a busy machine does not use up."""

JOB = JobFacts(JobKey("lab", 7, "r0"), 1000, "alice", "ml", "gpu", num_nodes=1, node="node1")


class QuickClock(SystemClock):
    """Sleeps a hundredth of what it is told, and notes it."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds / 100)


def policy(*fields: str) -> Policy:
    rules = [Rule(f, When((Selector(f, (Glob("x"),)),)), BASELINE_CAP, None, Source("p", 1)) for f in fields]
    return Policy(tuple(rules))


@dataclass
class Bench:
    """Look-ups over fakes. ``told`` has what came too late for its Prolog."""

    sources: list[tuple[str, JobLookup]]
    groups: dict[int, frozenset[str]] = field(default_factory=dict)
    clock: QuickClock = field(default_factory=QuickClock)
    tally: Tally = field(default_factory=Tally)
    told: list[JobFacts] = field(default_factory=list)

    def lookups(self, timeout_s: float = 0.5) -> Lookups:
        groups = Groups(self.clock, self.groups.__getitem__)
        return Lookups(self.sources, groups, self.clock, self.tally, self.told.append, timeout_s)

    def counted(self) -> dict[tuple[str, str], int]:
        return {key: n for key, n in self.tally.slurm_lookups.items() if n}


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


async def until(bench: Bench, count: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(bench.told) < count:  # noqa: ASYNC110 - what is told is a plain list
            await asyncio.sleep(0.005)


def one(uid: int = 1000) -> tuple[Bench, FakeLookup]:
    slurm = FakeLookup()
    slurm.add("high", "train", uid, job_id=7)
    return Bench([("scontrol", slurm)]), slurm


def test_a_policy_that_needs_nothing_asks_nothing() -> None:
    async def scene() -> None:
        bench, slurm = one()
        lookups = bench.lookups()
        assert not lookups.wanted(policy("account", "partition"))
        assert await lookups.begin(JOB, policy("account", "partition"), ENOUGH_S) is JOB
        assert slurm.asked == []

    run(scene())


def test_one_look_up_tells_qos_and_name_before_the_prolog_goes_on() -> None:
    async def scene() -> None:
        bench, slurm = one()
        lookups = bench.lookups()
        assert lookups.wanted(policy("qos"))
        found = await lookups.begin(JOB, policy("qos", "job_name"), ENOUGH_S)
        assert (found.qos, found.job_name) == ("high", "train")
        assert slurm.asked == [7]
        assert bench.counted() == {("scontrol", "ok"): 1}
        assert bench.told == []

    run(scene())


def test_what_the_hook_told_is_not_looked_up() -> None:
    async def scene() -> None:
        bench, slurm = one()
        job = replace(JOB, qos="normal")
        assert await bench.lookups().begin(job, policy("qos"), ENOUGH_S) == job
        assert slurm.asked == []
        found = await bench.lookups().begin(job, policy("qos", "job_name"), ENOUGH_S)
        assert (found.qos, found.job_name) == ("normal", "train")

    run(scene())


def test_while_slurmctld_hangs_the_prolog_goes_on_and_the_answer_is_told_later() -> None:
    async def scene() -> None:
        bench, slurm = one()
        slurm.break_down(LookupProblem.TIMEOUT)
        lookups = bench.lookups(timeout_s=0.05)
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert await lookups.begin(JOB, policy("qos"), patience_s=0.1) == JOB
        assert loop.time() - start < 10
        while ("scontrol", "timeout") not in bench.counted():  # noqa: ASYNC110 - nothing tells when it gives up
            await asyncio.sleep(0.005)
        slurm.mend()
        await until(bench)
        assert bench.told == [replace(JOB, qos="high", job_name="train")]
        counts = bench.counted()
        assert counts["scontrol", "ok"] == 1
        assert counts["scontrol", "timeout"] >= 1

    run(scene())


def test_a_prolog_that_comes_again_waits_for_the_same_look_up() -> None:
    async def scene() -> None:
        bench, slurm = one()
        slurm.break_down(LookupProblem.TIMEOUT)
        lookups = bench.lookups(timeout_s=5)
        await lookups.begin(JOB, policy("qos"), patience_s=0.01)
        again = asyncio.create_task(lookups.begin(JOB, policy("qos"), patience_s=5))
        await asyncio.sleep(0.01)
        slurm.mend()
        assert (await again).qos == "high"
        assert slurm.asked == [7]

    run(scene())


@pytest.mark.parametrize("problem", [LookupProblem.REFUSED, LookupProblem.NOT_FOUND, LookupProblem.WRONG])
def test_a_look_up_that_fails_is_made_again_after_growing_pauses(problem: LookupProblem) -> None:
    async def scene() -> None:
        bench, slurm = one()
        slurm.break_down(problem)
        await bench.lookups().begin(JOB, policy("qos"), patience_s=0.05)
        while len(slurm.asked) < 2:  # noqa: ASYNC110 - nothing tells when it is asked
            await asyncio.sleep(0.005)
        slurm.mend()
        await until(bench)
        assert bench.told[0].qos == "high"
        assert bench.counted()["scontrol", problem] == len(slurm.asked) - 1 >= 2
        pauses = [s for s in bench.clock.slept if s]
        assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S][: len(pauses)]

    run(scene())


@pytest.mark.parametrize("uid", [1000, 0])
def test_an_answer_of_another_job_or_of_another_users_is_wrong_and_not_believed(uid: int) -> None:
    async def scene() -> None:
        bench, slurm = one(uid)
        slurm.add("high", "mine", 1000, job_id=8)
        slurm.answers_of = 8 if uid == 1000 else None
        lookups = bench.lookups()
        assert (await lookups.begin(JOB, policy("qos"), patience_s=0.05)).qos is UNKNOWN
        assert bench.counted() == {("scontrol", "wrong"): bench.counted()["scontrol", "wrong"]}
        await lookups.close()

    run(scene())


def test_the_next_source_is_asked_where_one_refuses_and_not_where_slurmctld_is_silent() -> None:
    async def scene() -> None:
        bench, slurm = one()
        broken = FakeLookup()
        broken.break_down(LookupProblem.REFUSED)
        bench.sources.insert(0, ("pyslurm", broken))
        assert (await bench.lookups().begin(JOB, policy("qos"), ENOUGH_S)).qos == "high"
        assert bench.counted() == {("pyslurm", "refused"): 1, ("scontrol", "ok"): 1}
        broken.break_down(LookupProblem.TIMEOUT)
        lookups = bench.lookups(timeout_s=0.05)
        assert (await lookups.begin(JOB, policy("qos"), patience_s=0.03)).qos is UNKNOWN
        assert slurm.asked == [7]
        await lookups.close()

    run(scene())


def test_a_job_that_ended_is_looked_up_no_more() -> None:
    async def scene() -> None:
        bench, slurm = one()
        slurm.break_down(LookupProblem.REFUSED)
        lookups = bench.lookups()
        await lookups.begin(JOB, policy("qos"), patience_s=0.03)
        lookups.end(JOB.key)
        asked = len(slurm.asked)
        slurm.mend()
        await asyncio.sleep(0.1)
        assert len(slurm.asked) == asked
        assert bench.told == []

    run(scene())


def test_with_look_ups_off_it_stays_unknown_and_costs_the_prolog_nothing() -> None:
    async def scene() -> None:
        async with asyncio.timeout(5):
            assert (await Bench([]).lookups().begin(JOB, policy("qos"), patience_s=60)).qos is UNKNOWN

    run(scene())


def test_groups_come_from_the_user_database_by_the_owners_id() -> None:
    async def scene() -> None:
        bench, slurm = one()
        bench.groups[1000] = frozenset({"staff", "video"})
        found = await bench.lookups().begin(JOB, policy("group"), ENOUGH_S)
        assert found.groups == frozenset({"staff", "video"})
        assert slurm.asked == []

    run(scene())


def test_an_owner_whom_the_user_database_does_not_know_has_unknown_groups_until_it_does() -> None:
    async def scene() -> None:
        bench, _ = one()
        lookups = bench.lookups()
        assert (await lookups.begin(JOB, policy("group"), patience_s=0.05)).groups is UNKNOWN
        bench.groups[1000] = frozenset({"staff"})
        await until(bench)
        assert merge(JOB, bench.told[0]).groups == frozenset({"staff"})

    run(scene())


def test_what_is_missing_is_what_policy_looks_at_and_nobody_told() -> None:
    assert missing(JOB, policy("qos", "group", "account")) == {"qos", "group"}
    assert missing(replace(JOB, qos=None, groups=frozenset()), policy("qos", "group")) == frozenset()


@given(st.integers(1, 5000), st.integers(1, 10**9), st.sampled_from(["r0", "r1"]))
def test_a_jobs_nodes_spread_their_look_ups(num_nodes: int, job_id: int, run: str) -> None:
    job = replace(JOB, key=JobKey("lab", job_id, run), num_nodes=num_nodes)
    slots = sorted(slot_s(replace(job, node=f"gpu{n:04d}")) for n in range(min(num_nodes, 200)))
    assert all(0 <= slot <= num_nodes / NODES_PER_S for slot in slots)
    assert num_nodes > 1 or slots == [0]


def test_in_every_second_about_fifty_of_two_thousand_nodes_ask() -> None:
    job = replace(JOB, num_nodes=2000)
    seconds = [int(slot_s(replace(job, node=f"gpu{n:04d}"))) for n in range(2000)]
    assert set(seconds) == set(range(40))
    assert max(seconds.count(second) for second in range(40)) <= 2 * NODES_PER_S
