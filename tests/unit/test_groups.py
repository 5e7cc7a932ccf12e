"""Groups of a job's owner, from the user database of this machine or a stand-in that hangs."""

import asyncio
import grp
import os
import threading

import pytest
from tests.one_node import HandClock

from wattkeeper.model import UNKNOWN
from wattkeeper.system.groups import KEEP_S, Groups, groups_of


def test_root_is_in_its_own_group_whatever_group_this_process_runs_under() -> None:
    assert grp.getgrgid(0).gr_name in groups_of(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its group")
def test_a_change_of_group_as_newgrp_makes_it_changes_nothing() -> None:
    before = groups_of(0)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([4])
            os.setgid(4)
            os._exit(0 if groups_of(0) == before else 1)
        finally:
            os._exit(1)  # a failure must not go on as a second run of these tests
    assert os.waitpid(child, 0)[1] == 0


def test_what_was_said_is_kept_for_five_minutes() -> None:
    async def scene() -> None:
        clock, asked = HandClock(), list[int]()

        def ask(uid: int) -> frozenset[str]:
            asked.append(uid)
            return frozenset({f"g{len(asked)}"})

        groups = Groups(clock, ask)
        assert await groups.look_up(5, 5) == await groups.look_up(5, 5) == frozenset({"g1"})
        await clock.sleep(KEEP_S - 1)
        assert await groups.look_up(5, 5) == frozenset({"g1"})
        await clock.sleep(2)
        assert await groups.look_up(5, 5) == frozenset({"g2"})
        assert asked == [5, 5]

    asyncio.run(scene())


def test_a_database_that_hangs_costs_the_deadline_and_its_answer_serves_who_asks_next() -> None:
    async def scene() -> None:
        free = threading.Event()
        asked = list[int]()

        def ask(uid: int) -> frozenset[str]:
            asked.append(uid)
            free.wait(10)
            return frozenset({"staff"})

        groups = Groups(HandClock(), ask)
        found = await asyncio.gather(*(groups.look_up(uid, 0.05) for uid in (5, 5, 6)))
        assert found == [UNKNOWN] * 3
        free.set()
        assert await groups.look_up(5, 5) == frozenset({"staff"})
        assert await groups.look_up(6, 5) == frozenset({"staff"})
        assert asked == [5, 6]

    asyncio.run(scene())


def test_a_user_whom_nobody_knows_is_in_unknown_groups_and_is_asked_for_again() -> None:
    async def scene() -> None:
        known: dict[int, frozenset[str]] = {}
        groups = Groups(HandClock(), known.__getitem__)
        assert await groups.look_up(5, 5) is UNKNOWN
        known[5] = frozenset()
        assert await groups.look_up(5, 5) == frozenset()

    asyncio.run(scene())


def test_the_real_database_knows_no_such_user() -> None:
    with pytest.raises(KeyError):
        groups_of(4_000_000_000)
