"""What every look-up of a job does: the fake, Slurm's commands and (where there is one for this Slurm) pyslurm.

``WATTKEEPER_PYSLURM`` names a Python that has pyslurm, where it is not the one that runs the tests.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.fake_slurm import FakeLookup
from tests.lab import Lab, LabSpec, missing_programs
from tests.lab.database import ACCOUNT, PROGRAMS
from tests.lab.waiting import record, wait_until

from wattkeeper.agent.lookup import Lookups
from wattkeeper.agent.tally import Tally
from wattkeeper.core.policy import BASELINE_CAP, Glob, Policy, Rule, Selector, When
from wattkeeper.model import JobFacts, JobKey, Source
from wattkeeper.protocols import JobLookup, Looked, LookupFailedError, LookupProblem
from wattkeeper.slurm.programs import Programs
from wattkeeper.slurm.pyslurm import Pyslurm
from wattkeeper.slurm.scontrol import Scontrol
from wattkeeper.system.clock import SystemClock
from wattkeeper.system.groups import Groups

HEADER = "UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=1 Nice=0 Account=boss QOS=high JobState=RUNNING"
QOS_POLICY = Policy((Rule("a", When((Selector("qos", (Glob("high"),)),)), BASELINE_CAP, None, Source("p", 1)),))
HOSTILE = {
    "a field": ("train QOS=high", "QOS=high"),
    "a header": (f"x {HEADER}", f"y {HEADER}"),
    "a line": (f"x\nJobId=1 JobName=y {HEADER} Reason=None", f"z\nJobId=1 JobName=y {HEADER}"),
    "a row": ("x\n1|0|boss|high|y\n", "1|0|boss|high|"),
    "bytes": ("na\u00efve \U0001f600|tail  ", "\u2028"),
}


@dataclass
class World:
    """A Slurm with one way to look its jobs up."""

    lookup: JobLookup
    runner: asyncio.Runner
    lab: Lab | None = None

    def submit(self, name: str = "train", qos: str = "normal", comment: str = "", array: str = "") -> int:
        """A job that waits for ever: only a job of some other node could start it."""
        if self.lab is None:
            assert isinstance(self.lookup, FakeLookup)
            return self.lookup.add(qos, name)
        options = [f"--job-name={name}", f"--qos={qos}", f"--comment={comment}", *([f"--array={array}"] * bool(array))]
        return self.lab.sbatch("sleep 300", *options)

    def look_up(self, job_id: int, deadline_s: float = 5.0) -> Looked:
        return self.runner.run(self.lookup.look_up(job_id, deadline_s))

    def problem(self, job_id: int, deadline_s: float = 5.0) -> LookupProblem:
        with pytest.raises(LookupFailedError, match=str(job_id)) as failed:
            self.look_up(job_id, deadline_s)
        return failed.value.kind

    def hang(self) -> None:
        if self.lab:
            self.lab.slurmctld.signal(signal.SIGSTOP)
        elif isinstance(self.lookup, FakeLookup):
            self.lookup.break_down(LookupProblem.TIMEOUT)

    def go_on(self) -> None:
        if self.lab:
            self.lab.slurmctld.signal(signal.SIGCONT)
        elif isinstance(self.lookup, FakeLookup):
            self.lookup.mend()


@pytest.fixture(scope="module")
def dbd_lab() -> Iterator[Lab]:
    """One node, no agent, and a slurmdbd with QOS."""
    missing = missing_programs(PROGRAMS)
    if missing:
        pytest.skip(f"not installed on this machine: {', '.join(missing)}")
    with Lab(LabSpec(dbd=True, agents=False)) as lab:
        yield lab


@pytest.fixture(params=["fake", "scontrol", "pyslurm"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with asyncio.Runner() as runner:
        if request.param == "fake":
            yield World(FakeLookup(), runner)
            return
        lab: Lab = request.getfixturevalue("dbd_lab")
        programs = Programs(lab.files.slurm_conf, None)
        if request.param == "scontrol":
            yield World(Scontrol(programs), runner, lab)
        else:
            found = runner.run(Pyslurm.open(programs, os.environ.get("WATTKEEPER_PYSLURM", sys.executable)))
            if found is None:
                pytest.skip("needs pyslurm built for this Slurm; WATTKEEPER_PYSLURM names a Python that has it")
            yield World(found, runner, lab)
            runner.run(found.close())
        lab.cancel_all()


def test_tells_what_the_hook_does_not(world: World) -> None:
    job = world.submit("train-7", "high")
    looked = world.look_up(job)
    assert (looked.job_id, looked.uid) == (job, os.geteuid() if world.lab else 0)
    assert (looked.qos, looked.job_name, looked.account) == ("high", "train-7", ACCOUNT)


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_name_or_comment_passes_for_another_field(world: World, kind: str) -> None:
    name, comment = HOSTILE[kind]
    looked = world.look_up(world.submit(name, "low", comment))
    assert (looked.qos, looked.account) == ("low", ACCOUNT)
    assert looked.job_name == name or (looked.job_name, kind) == (name.rstrip(), "bytes")


def test_each_task_of_an_array_is_told_of_also_the_one_that_has_the_arrays_own_number(world: World) -> None:
    job = world.submit(f"x\nJobId=1 JobName=y {HEADER}", "low", array="0-2")
    if world.lab:
        lab, listed = world.lab, ("-h", "-j", str(job), "-t", "R", "-o", "%A")
        wait_until(lambda: len(lab.squeue(*listed).split()) == 3, 20, "all tasks run", note=False)
        ids = [int(word) for word in lab.squeue(*listed).split()]
        assert job in ids
        assert [world.look_up(task).job_id for task in ids] == ids
    assert world.look_up(job).qos == "low"


def test_a_job_that_is_not_there_is_not_found(world: World) -> None:
    assert world.problem(987_654) is LookupProblem.NOT_FOUND


def test_a_slurmctld_that_hangs_costs_the_deadline_and_no_more(world: World) -> None:
    job = world.submit(qos="high")
    world.hang()
    try:
        start = time.monotonic()
        assert world.problem(job, 0.3) is LookupProblem.TIMEOUT
        assert time.monotonic() - start < 2
    finally:
        world.go_on()
    assert world.look_up(job).qos == "high"


def test_a_look_up_is_one_message_to_slurmctld(world: World) -> None:
    job = world.submit(qos="high")
    if world.lab is None:
        world.look_up(job)
        assert isinstance(world.lookup, FakeLookup)
        assert world.lookup.asked == [job]
        return
    lab, before = world.lab, world.lab.sdiag()
    for _ in range(5):
        world.look_up(job)

    def came() -> dict[str, int]:
        asked = (lab.sdiag() - before).asked
        asked.pop("REQUEST_FED_INFO", 0)  # pyslurm asks of federations each time; it cannot be told not to
        asked.pop("REQUEST_SUBMIT_BATCH_JOB", 0)  # may be counted only now, like each of the look-ups
        return asked

    wait_until(lambda: sum(came().values()) >= 5, 5, "all look-ups are counted", note=False)
    assert came() == {"REQUEST_JOB_INFO_SINGLE": 5}


def test_with_slurmctld_gone_it_says_so_in_time(world: World) -> None:
    if world.lab is None:
        assert isinstance(world.lookup, FakeLookup)
        world.lookup.break_down(LookupProblem.REFUSED)
        assert world.problem(1) is LookupProblem.REFUSED
        return
    job = world.submit(qos="high")
    world.lab.stop_slurmctld()
    try:
        assert world.problem(job, 1.0) in {LookupProblem.REFUSED, LookupProblem.TIMEOUT}
    finally:
        world.lab.start_slurmctld()
    assert world.look_up(job).qos == "high"


def test_a_prolog_waits_200_ms_for_a_slurmctld_that_hangs_and_the_qos_comes_when_it_is_back(dbd_lab: Lab) -> None:
    async def scene() -> None:
        told = list[JobFacts]()
        lookup = Scontrol(Programs(dbd_lab.files.slurm_conf, None))
        clock = SystemClock()
        lookups = Lookups([("scontrol", lookup)], Groups(clock), clock, Tally(), told.append, timeout_s=0.5)
        dbd_lab.slurmctld.signal(signal.SIGSTOP)
        try:
            start = time.monotonic()
            assert await lookups.begin(job, QOS_POLICY) == job
            record("a Prolog while slurmctld hangs", time.monotonic() - start, 0.25)
        finally:
            dbd_lab.slurmctld.signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            while not told:  # noqa: ASYNC110 - what is told is a plain list
                await asyncio.sleep(0.02)
        assert told[0].qos == "high"
        await lookups.close()

    job = JobFacts(JobKey("lab", dbd_lab.sbatch("sleep 300", "--qos=high"), "r0"), os.geteuid(), num_nodes=1)
    asyncio.run(scene())
    dbd_lab.cancel_all()
