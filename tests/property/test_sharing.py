"""A GPU that several jobs hold by shards: whoever comes and goes, its limit is what the policy says at every moment.

The agent's own parts, from the hook's environment to the writes, against the rules of sharing written down anew.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import one_node
from tests.fakes import FakeGpus
from tests.one_node import OneNode

from wattkeeper.config.policy import parse_policies
from wattkeeper.core.policy import Policy
from wattkeeper.model import GpuInfo, Target
from wattkeeper.slurm.hook_event import EventKind

POLICY = """\
version: 1
caps:
  - {name: half, when: {partition: half}, cap: 350W}
  - {name: everyone, cap: 560W, requests: {min: 300W, max: baseline}}
ceilings:
  - {name: warm, when: {account: warm}, cap: 450W}
"""
BASELINE_W = 700
GPU = one_node.gpu(0)
MIG = one_node.gpu(0, instances=tuple((f"MIG-{n}", 1) for n in range(7)))
ASKED = {"": None, "power=250W": 300, "power=400W": 400, "power=600W": 600, "power=max": 700, "power=25OW": None}
"""What `everyone` makes of a comment, in watts."""

Shared = Literal["highest", "lowest"]


def policy(shared: Shared) -> Policy:
    found, _ = parse_policies([("p.yaml", POLICY)])
    return replace(found, shared_gpus=shared)


@dataclass(frozen=True)
class Job:
    """A job that asks for a shard of the GPU."""

    number: int
    uid: int
    partition: str
    comment: str
    account: str = ""

    @property
    def rule_w(self) -> int:
        return 350 if self.partition == "half" else 560

    @property
    def asked_w(self) -> int:
        """Its cap with its request."""
        asked = None if self.partition == "half" else ASKED[self.comment]
        return asked or self.rule_w

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SLURM_JOB_GPUS": "0",
            "SLURM_JOB_UID": str(self.uid),
            "SLURM_JOB_PARTITION": self.partition,
            "SLURM_JOB_COMMENT": self.comment,
            **({"SLURM_JOB_ACCOUNT": self.account} if self.account else {}),
        }


def wanted_w(jobs: list[Job], shared: Shared) -> int:
    """The limit that the policy above says for a GPU which these jobs hold."""
    if not jobs:
        return BASELINE_W
    strangers = len({job.uid for job in jobs}) > 1
    caps = [job.rule_w if strangers else job.asked_w for job in jobs]
    cap = max(caps) if shared == "highest" else min(caps)
    return min(cap, 450) if any(job.account for job in jobs) else cap


class Slow(FakeGpus):
    """Cards that take their time over a write, one at a time, in the order asked."""

    def __init__(self, *infos: GpuInfo) -> None:
        super().__init__(*infos)
        self._lock: asyncio.Lock | None = None

    async def set_limit(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        async with self._in_turn():
            await asyncio.sleep(0.002)
            return await super().set_limit(uuid, limit_mw, deadline_s)

    async def give_back(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        async with self._in_turn():
            await asyncio.sleep(0.002)
            return await super().give_back(uuid, limit_mw, deadline_s)

    def _in_turn(self) -> asyncio.Lock:
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock


def limit_w(node: OneNode) -> float:
    return (node.gpus.gpus[GPU.uuid].reading.requested_mw or 0) / 1000


def target(node: OneNode) -> Target:
    found = node.state.gpus[GPU.uuid].target
    assert found is not None
    return found


def shards(shared: Shared, info: GpuInfo = GPU, gpus: FakeGpus | None = None) -> OneNode:
    return OneNode(info, gres=one_node.shared(1), policy=policy(shared), gpus=gpus)


def start(node: OneNode, job: Job) -> None:
    assert node.prolog(job.number, "0", **job.environment).applied


_jobs = st.builds(
    Job,
    number=st.integers(1, 5),
    uid=st.sampled_from([1000, 1000, 1001]),
    partition=st.sampled_from(["half", "gpu"]),
    comment=st.sampled_from(sorted(ASKED)),
    account=st.sampled_from(["", "", "warm"]),
)
_steps = st.lists(_jobs | st.integers(1, 5) | st.sampled_from(["tick", "restart"]), min_size=1, max_size=14)


def live(node: OneNode, steps: list[Job | int | str]) -> Iterator[list[Job]]:
    """Goes through the steps; after each, who holds the GPU. A job is started, or ended by its place, once each."""
    here: dict[int, Job] = {}
    runs: dict[int, int] = {}
    for step in steps:
        if isinstance(step, Job):
            if step.number in here:
                node.prolog(step.number, "0", **_run(here[step.number], runs))  # said twice
            else:
                runs[step.number] = runs.get(step.number, -1) + 1
                here[step.number] = step
                assert node.prolog(step.number, "0", **_run(step, runs)).applied
        elif isinstance(step, int):
            here.pop(step, None)
            if step in runs:
                node.epilog(step, SLURM_JOB_RESTART_COUNT=str(runs[step]))  # perhaps not for the first time
        elif step == "tick":
            node.go_on(5)
            node.tick()
        else:
            node.start()
            node.tick()
        yield list(here.values())


def _run(job: Job, runs: dict[int, int]) -> dict[str, str]:
    environment = {**job.environment, "SLURM_JOB_RESTART_COUNT": str(runs[job.number])}
    del environment["SLURM_JOB_GPUS"]
    return environment


@given(st.sampled_from(["highest", "lowest"]), st.sampled_from([GPU, MIG]), _steps)
def test_the_limit_is_right_whoever_comes_and_goes(shared: Shared, info: GpuInfo, steps: list[Job | int | str]) -> None:
    node = shards(shared, info)
    for jobs in live(node, steps):
        want = wanted_w(jobs, shared)
        assert {mw / 1000 for _, mw in node.gpus.writes} <= {want}  # and nothing on the way
        assert limit_w(node) == want
        alone = [wanted_w([job], shared) for job in jobs]
        assert target(node).conflicts == sum(cap != want for cap in alone)
        node.gpus.writes.clear()


@given(st.sampled_from(["highest", "lowest"]), _steps)
def test_on_a_gpu_of_several_users_nobody_s_words_move_the_limit(shared: Shared, steps: list[Job | int | str]) -> None:
    """Beside a node where the same jobs come and go and ask for nothing: while users share, the limits are the same."""
    node, silent = shards(shared), shards(shared)
    mute = [replace(step, comment="") if isinstance(step, Job) else step for step in steps]
    for jobs, _ in zip(live(node, steps), live(silent, mute), strict=True):
        if len({job.uid for job in jobs}) > 1:
            assert limit_w(node) == limit_w(silent)


@given(
    st.sampled_from(["highest", "lowest"]), st.lists(_jobs, min_size=2, max_size=4, unique_by=lambda job: job.number)
)
def test_jobs_that_start_and_end_in_one_moment_end_up_right(shared: Shared, jobs: list[Job]) -> None:
    """While a write is under way, what the card reads is no more what it will have."""
    node = shards(shared, gpus=Slow(GPU))
    node.post_at_once(*((EventKind.PROLOG, job.number, job.environment) for job in jobs))
    assert limit_w(node) == wanted_w(jobs, shared)
    node = shards(shared, gpus=Slow(GPU))
    for job in jobs:
        start(node, job)
    node.post_at_once(*((EventKind.EPILOG, job.number, {}) for job in jobs[1:]))
    assert limit_w(node) == wanted_w(jobs[:1], shared)


def test_a_raise_that_was_overtaken_is_not_made() -> None:
    """It waited for a lowering on another GPU; meanwhile another user's job came, and with it another limit."""
    infos = one_node.gpu(0), one_node.gpu(1)
    node = OneNode(*infos, gres=one_node.shared(2), policy=policy("highest"), gpus=Slow(*infos))
    start(node, Job(1, 1000, "half", ""))
    both = {**Job(2, 1000, "gpu", "power=600W").environment, "SLURM_JOB_GPUS": "0,1"}
    stranger = Job(3, 1001, "half", "")
    node.post_at_once((EventKind.PROLOG, 2, both), (EventKind.PROLOG, 3, stranger.environment))
    assert limit_w(node) == 560
    assert node.gpus.gpus[infos[1].uuid].reading.requested_mw == 600_000


@pytest.mark.parametrize(("shared", "together"), [("highest", 600), ("lowest", 300)])
def test_two_jobs_of_one_user(shared: Shared, together: int) -> None:
    node = shards(shared)
    low, high = Job(1, 1000, "gpu", "power=300W"), Job(2, 1000, "gpu", "power=600W")
    start(node, low)
    assert (limit_w(node), target(node).conflicts) == (300, 0)
    start(node, high)
    assert (limit_w(node), target(node).conflicts) == (together, 1)
    node.epilog(1 if shared == "lowest" else 2)
    assert (limit_w(node), target(node).conflicts) == (900 - together, 0)


def test_each_of_two_users_hears_why_his_request_does_not_count() -> None:
    node = shards("highest")
    start(node, Job(1, 1000, "gpu", "power=300W"))
    start(node, Job(2, 1001, "half", ""))
    asked, silent = (job.message for job in node.snapshot().jobs)
    void = "you asked 300W, which does not count because other users' jobs hold this GPU too"
    assert asked == f"wattkeeper: GPU 0 capped at 560 W ({void}; rule 'everyone'; alone you would have 300 W)"
    assert "sharing 2 jobs of different users" in silent
    assert silent.endswith("the highest of 560 W, 350 W; alone you would have 350 W)")
    node.epilog(2)
    assert "(you asked 300W; rule 'everyone' grants it)" in node.snapshot().jobs[0].message


def test_a_mig_instance_s_holder_hears_that_the_limit_is_the_gpu_s() -> None:
    node = shards("lowest", MIG)
    start(node, Job(1, 1000, "gpu", ""))
    (decision,) = target(node).decisions
    assert "the limit is the whole GPU's" in str(decision.steps[2])
