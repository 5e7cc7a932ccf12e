"""For how long jobs and their records are kept, by a clock that may be wrong at first, and what cannot be kept."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.one_node import HandClock

from wattkeeper.agent.records import PRUNE_EVERY_S, RecordKeeper
from wattkeeper.ledger.memory import MemoryStore
from wattkeeper.ledger.records import Records
from wattkeeper.model import JobFacts, JobKey, Outcome
from wattkeeper.protocols import Change, JobNote

KEEP_S = 30 * 86_400.0


class House:
    """A ledger and its folder of records, looked after every ten minutes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = HandClock()
        self.store = MemoryStore()
        self.begin()

    def begin(self) -> None:
        self._keeper = RecordKeeper(Records(self.folder, lambda _: None), self.clock, lambda: KEEP_S)

    def end_job(self, number: int, started_at: float | None = None) -> None:
        """A job that has just ended, and its record."""
        at = self.clock.wall()
        facts = JobFacts(JobKey("c", number, "r0"), uid=1000)
        note = JobNote(facts, at - 60 if started_at is None else started_at, at, None, Outcome.NONE, None, {})
        self.store.commit(Change(self.clock.boot, at, notes=(note,)))
        self._keeper.expect()
        self.go_on(60)

    def go_on(self, seconds: float) -> None:
        until = self.clock.at_mono + seconds
        while self.clock.at_mono < until:
            self.clock.at_mono += min(600.0, until - self.clock.at_mono)
            while self._keeper.due:
                self._keeper.keep_up(self.store)

    @property
    def trouble(self) -> str | None:
        return self._keeper.trouble

    @property
    def jobs(self) -> list[int]:
        """Of which jobs records stand in the files."""
        lines = [line for file in sorted(self.folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
        return [json.loads(line)["job_id"] for line in lines]

    @property
    def files(self) -> int:
        return len(list(self.folder.glob("*.jsonl")))


@pytest.fixture
def house() -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="wk-kept-", dir="/tmp") as folder:
        yield House(Path(folder) / "records")


def test_what_is_older_than_the_setting_is_forgotten_within_a_day(house: House) -> None:
    house.end_job(1)
    house.go_on(KEEP_S)
    assert house.files == 1
    house.go_on(2 * PRUNE_EVERY_S)
    assert house.files == 0


def test_an_agent_that_is_restarted_every_day_forgets_too(house: House) -> None:
    house.end_job(1)
    for _ in range(40):
        house.begin()
        house.go_on(86_400)
    assert house.files == 0


@pytest.mark.parametrize("years", [20, -20])
def test_a_clock_that_is_wrong_at_boot_costs_nothing(house: House, years: int) -> None:
    house.end_job(1)
    house.go_on(86_400)
    house.clock.off_s = years * 365 * 86_400.0
    house.begin()
    house.go_on(1_800)
    house.clock.off_s = 0.0
    house.go_on(2 * PRUNE_EVERY_S)
    assert house.files == 1


def test_a_job_of_which_no_record_can_be_made_is_named_and_keeps_no_other_waiting(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.end_job(1)
    house.end_job(2, started_at=1e18)
    house.end_job(3)
    house.end_job(4, started_at=-1e18)
    house.end_job(5)
    assert house.jobs == [1, 3, 5]
    assert house.trouble is not None
    assert house.trouble.startswith("no record can be made of job 2 and 1 more (")
    assert house.trouble.endswith("); please report this; all others are written")
    assert sum("no end-of-job record can be made of it" in line for line in caplog.messages) == 2
    house.begin()  # it is tried again, and the others are not written again
    house.go_on(60)
    assert house.jobs == [1, 3, 5]
    assert house.trouble is not None
