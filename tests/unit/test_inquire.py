"""What follows from answers about jobs: late ones, of jobs that ended, after a restart, after a reload, told twice."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.asking_node import UID, AskingNode

from wattkeeper.config.policy import parse_policies
from wattkeeper.core.policy import Policy
from wattkeeper.protocols import Change, Looked, LookupProblem
from wattkeeper.slurm.hook_event import EventKind

PLAIN = "version: 1\ncaps: [{name: all, cap: 500W}]\n"
BY_QOS = """\
version: 1
caps:
  - {name: high, when: {qos: high}, cap: 600W}
  - {name: low, when: {qos: low}, cap: 250W}
  - {name: rest, cap: 400W}
"""
BY_GROUP = """\
version: 1
caps:
  - {name: staff, when: {group: staff}, cap: 600W}
  - {name: rest, cap: 300W}
"""


def read(text: str) -> Policy:
    return parse_policies([("p.yaml", text)])[0]


@pytest.fixture
def node() -> Iterator[AskingNode]:
    one = AskingNode(read(BY_QOS))
    for job_id, qos in ((1, "high"), (2, "low"), (3, "high")):
        one.slurm.truth[job_id] = Looked(job_id, UID, qos, "train", "ml")
    yield one
    one.close()


def test_a_late_answer_puts_the_cap_right_and_is_kept(node: AskingNode) -> None:
    assert node.prolog(1, "0", waits=True).outcome == "applied"
    assert node.limit_w(0) == 250
    node.tick()
    assert node.limit_w(0) == 250
    node.tell(1)
    assert node.limit_w(0) == 600
    assert node.node.tally.cap_writes["lookup"] == 1
    assert node.published == 1
    assert node.node.changes[-1].notes[0].facts.qos == "high"
    assert node.slurm.asked == [1]


def test_an_answer_in_time_is_the_first_cap(node: AskingNode) -> None:
    async def soon() -> None:
        while not node.slurm.waiting():  # noqa: ASYNC110 - nothing tells when a question comes
            await asyncio.sleep(0)
        node.slurm.tell(1)

    async def both() -> None:
        asyncio.get_running_loop().create_task(soon())

    node.do(both())
    node.prolog(1, "0", waits=True)
    assert node.limit_w(0) == 600
    assert [mw for _, mw in node.node.gpus.writes] == [600_000]


def test_an_answer_that_comes_while_its_job_is_written_down_is_not_asked_for_again(
    node: AskingNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = node.node.parts.ledger
    commit = ledger.commit

    async def slowly(change: Change) -> bool:
        node.slurm.tell(1)
        for _ in range(20):
            await asyncio.sleep(0)
        return await commit(change)

    monkeypatch.setattr(ledger, "commit", slowly)
    node.prolog(1, "0")
    assert node.slurm.asked == [1]
    assert node.limit_w(0) == 600


def test_the_answer_for_a_job_that_ended_meanwhile_changes_nothing(node: AskingNode) -> None:
    node.prolog(1, "0")
    node.epilog(1)
    assert node.slurm.waiting() == set()
    before = list(node.node.gpus.writes)
    node.tell(1)
    node.advance(1000)
    assert node.node.gpus.writes == before
    assert node.limit_w(0) == 700
    assert node.slurm.asked == [1]


def test_a_superseded_job_is_asked_about_no_more(node: AskingNode) -> None:
    node.prolog(1, "0")
    node.prolog(2, "0")
    assert node.slurm.waiting() == {2}
    node.tell(2)
    assert node.limit_w(0) == 250


@pytest.mark.parametrize("how", ["after its Epilog", "on GPUs that are not there", "on none of ours"])
def test_a_job_that_does_not_begin_is_asked_about_no_more(node: AskingNode, how: str) -> None:
    if how == "after its Epilog":
        node.epilog(1)
        assert node.prolog(1, "0").outcome == "late"
    elif how == "on none of ours":
        assert node.prolog(1, "0,1,2,3,4,5").outcome == "unmapped"
    else:
        assert node.prolog(1, "7").outcome == "unmapped"
    assert node.slurm.waiting() == set()
    node.advance(1000)
    assert len(node.slurm.asked) <= 1


def test_two_tells_write_once(node: AskingNode) -> None:
    node.prolog(1, "0,1")
    node.prolog(1, "0,1")  # its hook comes again
    node.tell(1)
    assert (node.limit_w(0), node.limit_w(1)) == (600, 600)
    assert node.node.tally.cap_writes["lookup"] == 2
    assert node.slurm.asked == [1]
    assert node.prolog(1, "0,1").outcome == "duplicate"
    assert (node.limit_w(0), node.limit_w(1)) == (600, 600)
    assert node.slurm.asked == [1]


def test_an_agent_that_starts_again_asks_only_for_what_was_not_known(node: AskingNode) -> None:
    node.prolog(1, "0")
    node.tell(1)
    node.prolog(3, "1")
    before = list(node.node.gpus.writes)
    node.restart()
    assert node.slurm.asked == [1, 3, 3]
    assert node.node.gpus.writes == before
    node.tell(3)
    assert (node.limit_w(0), node.limit_w(1)) == (600, 600)


def test_a_reload_asks_about_the_jobs_that_run(node: AskingNode) -> None:
    node.reload(read(PLAIN))
    node.prolog(1, "0")
    node.prolog(2, "1")
    assert node.slurm.asked == []
    node.reload(read(BY_QOS))
    assert node.slurm.waiting() == {1, 2}
    assert (node.limit_w(0), node.limit_w(1)) == (250, 250)
    node.tell(2)
    node.tell(1)
    assert (node.limit_w(0), node.limit_w(1)) == (600, 250)
    node.reload(read(PLAIN))
    assert (node.limit_w(0), node.limit_w(1)) == (500, 500)
    node.reload(read(BY_QOS))
    assert (node.limit_w(0), node.limit_w(1)) == (600, 250)
    assert node.slurm.asked == [1, 2]


def test_settings_that_ask_another_way_ask_anew_and_end_the_old_way(node: AskingNode) -> None:

    node.prolog(1, "0")
    settings = node.node.state.settings
    node.node.state.settings = replace(settings, slurm=replace(settings.slurm, timeout=1.0))
    node.reload(read(BY_QOS))
    assert (node.opened, node.slurm.closed) == (2, 1)
    assert node.slurm.waiting() == {1}
    node.tell(1)
    assert node.limit_w(0) == 600


def test_trouble_is_told_while_somebody_waits(node: AskingNode) -> None:
    assert (dict(node.inquirer.up), node.inquirer.trouble) == ({}, None)
    node.prolog(1, "0")
    node.fail(1)
    assert dict(node.inquirer.up) == {"slurm": False}
    assert "no answer from Slurm about jobs" in (node.inquirer.trouble or "")
    node.advance(2)
    node.fail(1, LookupProblem.NOT_FOUND)
    assert dict(node.inquirer.up) == {"slurm": True}
    node.advance(4)
    node.tell(1)
    node.prolog(3, "1")
    node.fail(3, LookupProblem.REFUSED)
    assert dict(node.inquirer.up) == {"slurm": False}
    node.epilog(3)
    assert (dict(node.inquirer.up), node.inquirer.trouble) == ({}, None)
    node.prolog(2, "0")
    node.tell(2)
    assert dict(node.inquirer.up) == {"slurm": True}
    node.reload(read(PLAIN))
    assert dict(node.inquirer.up) == {}


def test_groups_are_not_slurms_to_tell(node: AskingNode) -> None:
    node.known_groups = frozenset({"staff"})
    node.reload(read(BY_GROUP))
    node.prolog(1, "0", waits=True)
    assert node.limit_w(0) == 600
    assert node.slurm.asked == []
    assert dict(node.inquirer.up) == {"groups": True}


def test_a_policy_that_needs_nothing_opens_nothing(node: AskingNode) -> None:
    node.reload(read(PLAIN))
    opened = node.opened
    node.prolog(1, "0")
    assert node.opened == opened == 0


def test_a_job_that_began_while_the_policy_changed_is_asked_about(node: AskingNode) -> None:
    """Between the facts of a Prolog and its holding another policy comes, which needs more."""
    node.reload(read(PLAIN))

    async def begin() -> None:
        async with node.node.parts.deciding:
            raw = f"SLURM_JOB_ID=1\0SLURM_JOB_UID={UID}\0SLURM_CLUSTER_NAME=c\0SLURM_JOB_GPUS=0\0".encode()
            posted = asyncio.get_running_loop().create_task(node.events.handle(EventKind.PROLOG, raw))
            await asyncio.sleep(0.01)
            node.node.state.policy = read(BY_QOS)
        await posted

    node.do(begin())
    assert node.limit_w(0) == 250
    node.tell(1)
    assert node.limit_w(0) == 600
