"""End-of-job records: what a line says, that each stands once in its file, and docs/records.md."""

import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from wattkeeper.errors import StoreError
from wattkeeper.ledger import rows
from wattkeeper.ledger.records import Records, to_values
from wattkeeper.ledger.rows import local_day
from wattkeeper.model import (
    UNKNOWN,
    Basis,
    EnergySource,
    GpuUuid,
    JobFacts,
    JobKey,
    Outcome,
    Usage,
)
from wattkeeper.protocols import GpuNote, JobNote, JobRecord
from wattkeeper.units import Millijoules, Milliwatts

PAGE = Path(__file__).resolve().parents[2] / "docs" / "records.md"
A, B = GpuUuid("GPU-0b1f"), GpuUuid("GPU-77aa")
START = 1_795_600_000.25
DAY = 86_400.0
COUNTER = frozenset({EnergySource.COUNTER})


def record(job_id: int = 4711, ended_at: float = START + 3600, **known: Any) -> JobRecord:
    facts = JobFacts(JobKey("lab", job_id, "sK3V"), 1000, "alice", "physics", "gpu", "normal", "train", node="gpu-07")
    gpus = {A: GpuNote(0, "NVIDIA H100 80GB HBM3", Milliwatts(300_000)), B: GpuNote(1, "Tesla K80", None)}
    note = JobNote(replace(facts, **known), START, ended_at, "300W", Outcome.GRANTED, "everyone", gpus)
    sole = frozenset({Basis.SOLE})
    return JobRecord(
        note,
        {A: Usage(Millijoules(1_080_000_001), 3600 * 10**9, 432 * 10**9, Milliwatts(612_500), sole, COUNTER)},
    )


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Days are the node's: one hour ahead of UTC in winter."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    rows._day_of_quarter.cache_clear()
    yield
    monkeypatch.undo()
    time.tzset()
    rows._day_of_quarter.cache_clear()


class Folder:
    """A folder of records, those who write there one after the other, and what they told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []

    def begin(self) -> Records:
        return Records(self.path, self.told.append)

    def ids(self, day: str = "2026-11-25") -> list[int]:
        return [json.loads(line)["job_id"] for line in (self.path / f"{day}.jsonl").read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "lib" / "records")


def test_a_record_says_everything_in_base_units() -> None:
    assert to_values(record()) == {
        "v": 1,
        "cluster": "lab",
        "job_id": 4711,
        "run": "sK3V",
        "node": "gpu-07",
        "user": "alice",
        "uid": 1000,
        "account": "physics",
        "partition": "gpu",
        "qos": "normal",
        "job_name": "train",
        "started_at": 1795600000.25,
        "ended_at": 1795603600.25,
        "started": "2026-11-25T10:46:40.250+01:00",
        "ended": "2026-11-25T11:46:40.250+01:00",
        "seconds": 3600.0,
        "energy_mj": 1080000001,
        "energy_j": 1080000.001,
        "gpus": [
            {
                "gpu": 0,
                "uuid": "GPU-0b1f",
                "model": "NVIDIA H100 80GB HBM3",
                "energy_mj": 1080000001,
                "seconds": 3600.0,
                "mean_w": 300.0,
                "peak_w": 612.5,
                "capped_seconds": 432.0,
                "cap_w": 300.0,
                "basis": ["sole"],
                "source": ["counter"],
            },
            {
                "gpu": 1,
                "uuid": "GPU-77aa",
                "model": "Tesla K80",
                "energy_mj": None,
                "seconds": None,
                "mean_w": None,
                "peak_w": None,
                "capped_seconds": None,
                "cap_w": None,
                "basis": [],
                "source": [],
            },
        ],
        "asked": "300W",
        "outcome": "granted",
        "rule": "everyone",
    }


def test_times_are_the_same_in_both_forms() -> None:
    values = to_values(record(ended_at=START + 0.3349))
    assert (values["ended_at"], values["ended"]) == (1795600000.585, "2026-11-25T10:46:40.585+01:00")


def test_what_is_not_known_is_null_and_never_0() -> None:
    facts = JobFacts(JobKey("", 5, "r0"), 1000, account=UNKNOWN, qos=UNKNOWN, job_name=None)
    values = to_values(JobRecord(JobNote(facts, START, START + 1), {}))
    names = ("cluster", "node", "user", "account", "partition", "qos", "job_name", "energy_mj", "energy_j", "rule")
    assert {name: values[name] for name in names} == dict.fromkeys(names)
    assert (values["asked"], values["outcome"], values["gpus"]) == (None, "none", [])


def test_a_gpu_that_used_nothing_says_0_because_that_is_known() -> None:
    facts = JobFacts(JobKey("", 5, "r0"), 1000)
    usage = Usage(Millijoules(0), 10**9, 0, Milliwatts(0), frozenset({Basis.USE}), COUNTER)
    values = to_values(JobRecord(JobNote(facts, START, START + 1), {A: usage}))
    gpu = values["gpus"][0]
    assert (gpu["energy_mj"], gpu["mean_w"], gpu["peak_w"], gpu["capped_seconds"]) == (0, 0.0, 0.0, 0.0)
    assert (gpu["gpu"], gpu["model"], gpu["cap_w"]) == (None, None, None)
    assert values["energy_mj"] == 0


def test_users_text_is_on_one_line_and_cannot_pass_for_anything_else(folder: Folder) -> None:
    evil = 'x"}\n{"job_id":1}\u202e\udcff\\'
    folder.begin().write([record(job_name=evil, user=evil)])
    [line] = (folder.path / "2026-11-25.jsonl").read_text().splitlines()
    assert line.isascii()
    assert json.loads(line)["job_name"] == 'x"}\\x0a{"job_id":1}\\u202e\\udcff\\\\'
    assert json.loads(line)["user"] == json.loads(line)["job_name"]


def test_records_lie_in_the_file_of_the_local_day_on_which_the_run_ended(folder: Folder) -> None:
    midnight = datetime(2026, 11, 25, 23, 0, tzinfo=UTC).timestamp()  # in Berlin
    folder.begin().write([record(1, midnight - 0.001), record(2, midnight)])
    assert (folder.ids("2026-11-25"), folder.ids("2026-11-26")) == ([1], [2])


def test_only_its_owner_reads_them_and_they_are_told_as_they_stand(folder: Folder) -> None:
    folder.begin().write([record(1), record(2)])
    file = folder.path / "2026-11-25.jsonl"
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(folder.path.stat().st_mode)) == (0o600, 0o700)
    assert folder.told == file.read_text().splitlines()


def test_rights_that_a_site_has_given_stay(folder: Folder) -> None:
    folder.begin().write([record(1)])
    file = folder.path / "2026-11-25.jsonl"
    file.chmod(0o640)
    folder.path.chmod(0o750)
    folder.begin().write([record(2)])
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(folder.path.stat().st_mode)) == (0o640, 0o750)


def test_what_a_crash_left_unnoted_is_not_written_again(folder: Folder) -> None:
    folder.begin().write([record(1), record(2)])  # killed before the ledger knew
    after = folder.begin()
    after.write([record(1), record(2), record(3)])
    assert folder.ids() == [1, 2, 3]
    assert [json.loads(line)["job_id"] for line in folder.told] == [1, 2, 1, 2, 3]  # twice rather than never
    after.noted()
    after.write([record(4)])
    assert folder.ids() == [1, 2, 3, 4]


def test_what_could_not_be_noted_is_told_and_written_once(folder: Folder) -> None:
    records = folder.begin()
    for _ in range(3):
        records.write([record(1), record(2)])
    assert folder.ids() == [1, 2]
    assert len(folder.told) == 2


def test_the_same_job_on_another_run_or_node_is_another(folder: Folder) -> None:
    folder.begin().write([record(1)])
    again = record(1)
    requeued = JobFacts(JobKey("lab", 1, "sNEXT"), 1000, node="gpu-07")
    elsewhere = JobFacts(JobKey("lab", 1, "sK3V"), 1000, node="gpu-08")
    for facts in (requeued, elsewhere):
        folder.begin().write([JobRecord(JobNote(facts, START, again.note.ended_at), {})])
    assert folder.ids() == [1, 1, 1]


def test_a_job_of_the_same_name_later_on_the_same_day_is_another(folder: Folder) -> None:
    """A cluster that was set up anew counts from 1 again. However often it is written, each has one line."""
    first = record(1)
    later = JobRecord(replace(first.note, started_at=START + 4000, ended_at=START + 5000), first.usage)
    for _ in range(2):
        folder.begin().write([first])
        folder.begin().write([later])
    lines = (folder.path / "2026-11-25.jsonl").read_text().splitlines()
    assert [json.loads(line)["started_at"] for line in lines] == [START, START + 4000]


def test_a_line_that_a_crash_cut_short_is_replaced_by_the_whole_one(folder: Folder) -> None:
    folder.begin().write([record(1), record(2)])
    file = folder.path / "2026-11-25.jsonl"
    os.truncate(file, file.stat().st_size - 5)
    folder.begin().write([record(2)])
    assert folder.ids() == [1, 2]


def test_lines_that_are_none_of_ours_are_left(folder: Folder) -> None:
    folder.path.mkdir(parents=True)
    file = folder.path / "2026-11-25.jsonl"
    file.write_bytes(b'\xff\xfe\n[]\n{"job_id": [1]}\n')
    folder.begin().write([record(1)])
    assert file.read_bytes().startswith(b'\xff\xfe\n[]\n{"job_id": [1]}\n{"v":1,')


def test_where_nobody_listens_the_file_is_written(folder: Folder) -> None:
    def closed(line: str) -> None:
        raise BrokenPipeError

    Records(folder.path, closed).write([record(1)])
    assert folder.ids() == [1]


def test_a_folder_that_cannot_be_written_is_named_with_the_mend(folder: Folder) -> None:
    folder.path.parent.mkdir()
    folder.path.write_text("in the way")
    with pytest.raises(StoreError, match=r"records/2026-11-25\.jsonl: cannot write end-of-job records .*; make room"):
        folder.begin().write([record(1)])


def test_files_of_days_before_are_removed_and_no_others(folder: Folder) -> None:
    ends = [START, START + 10 * DAY, START + 20 * DAY]
    folder.begin().write([record(number, at) for number, at in enumerate(ends)])
    for name in ("2026-11-01.jsonl.gz", "notes.txt", "2020-01-01.json"):
        (folder.path / name).touch()
    assert folder.begin().prune(START + 10 * DAY) == 1
    left = {path.name for path in folder.path.iterdir()}
    days = {f"{local_day(at)}.jsonl" for at in ends[1:]}
    assert left == days | {"2026-11-01.jsonl.gz", "notes.txt", "2020-01-01.json"}


def test_there_is_nothing_to_remove_before_the_first_record(folder: Folder) -> None:
    assert folder.begin().prune(START) == 0


@pytest.mark.parametrize(("utc_hour", "day"), [(22, "2026-11-25"), (23, "2026-11-26")])
def test_days_are_those_of_the_nodes_time_zone(utc_hour: int, day: str) -> None:
    at = datetime(2026, 11, 25, tzinfo=UTC) + timedelta(hours=utc_hour, minutes=30)
    assert local_day(at.timestamp()) == day


# docs/records.md


def test_the_documents_example_is_what_is_written() -> None:
    example = re.search(r"^```json\n(?P<text>.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert example is not None
    assert json.loads(example["text"]) == to_values(record())


def test_every_field_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| `(?P<name>[a-z_\[\].]+)` \|", PAGE.read_text(), re.MULTILINE)
    values = to_values(record())
    assert rows == [*(name for name in values if name != "gpus"), "gpus", *(f"gpus[].{x}" for x in values["gpus"][0])]
