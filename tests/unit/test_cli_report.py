"""``wattkeeper report`` as people and programs read it."""

import csv
import io
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result
from tests.unit.test_report import HOUR_NS, A, B, charge, key, note

from wattkeeper.cli import period, report
from wattkeeper.cli.main import cli
from wattkeeper.errors import StoreError
from wattkeeper.ledger.report import FIELDS
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import Charges
from wattkeeper.units import Millijoules

GOLDEN = Path(__file__).parents[1] / "golden" / "cli-report.txt"
KWH = 3_600_000_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A ledger of 20 and 21 November, looked at on the 23rd."""
    monkeypatch.setattr(report, "today", lambda: date(2026, 11, 23))
    monkeypatch.setattr(period, "today", lambda: date(2026, 11, 23))
    with closing(SqliteStore(tmp_path / "state.db")) as store:
        ml: dict[str, Any] = {"account": "ml", "partition": "gpu"}
        jobs = (note(1, **ml, user="ann"), note(2, **ml, user="b\x1bob"), note(3, partition="debug", user="eve"))
        charge(store, "2026-11-20", Charges(A, {key(1): Millijoules(7 * KWH)}, held_ns=10 * HOUR_NS), notes=jobs)
        charge(store, "2026-11-20", Charges(A, {key(3): Millijoules(2 * KWH)}, held_ns=5 * HOUR_NS))
        both = Charges(B, {key(2): Millijoules(30 * KWH)}, idle_mj=Millijoules(10 * KWH), held_ns=50 * HOUR_NS)
        charge(store, "2026-11-21", both, Charges(A, unattributed_mj=Millijoules(KWH)))
        charge(store, "2026-11-21", notes=(note(1, "2026-11-20", **ml, user="ann"),), over=(key(1),))
        yield tmp_path


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["report", "--state-dir", str(folder), *arguments], terminal_width=100)


def printed(folder: Path, *arguments: str) -> str:
    result = run(folder, *arguments)
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output.replace(str(folder), "/var/lib/wattkeeper")


def test_tables_are_as_agreed(folder: Path) -> None:
    questions = (
        (),
        ("--by", "user", "--top", "1"),
        ("--by", "day,account", "--since", "2026-11"),
        ("--by", "partition", "--account", "m*", "--since", "2026-11-21", "--until", "2026-11-21"),
    )
    text = "".join(f"$ wattkeeper report {' '.join(words)}\n{printed(folder, *words)}\n" for words in questions)
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_csv_lines_sum_to_what_the_gpus_used(folder: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(printed(folder, "--csv", "--by", "account", "--by", "user", "--top", "1"))))
    assert [(line["kind"], line["account"], line["user"], line["jobs"]) for line in lines] == [
        ("jobs", "ml", "b\\x1bob", "0"),
        ("others", "", "", "1"),
        ("idle", "", "", ""),
        ("unattributed", "", "", ""),
    ]
    assert sum(int(line["energy_mj"]) for line in lines) == 50 * KWH
    assert sum(float(line["share"]) for line in lines) == pytest.approx(1)
    assert (lines[0]["gpu_hours"], lines[0]["mean_w"], lines[0]["energy_j"]) == ("50.0", "600.0", "108000000.0")


def test_json_says_null_where_nothing_is_known(folder: Path) -> None:
    answer = json.loads(printed(folder, "--json"))
    assert [row["account"] for row in answer["rows"]] == ["ml", None]
    assert (answer["since"], answer["until"], answer["by"]) == ("2026-11-17", "2026-11-23", ["account"])
    assert (answer["idle"]["mean_w"], answer["idle"]["jobs"], answer["total"]["mean_w"]) == (None, None, None)
    assert answer["total"]["energy_mj"] == 50 * KWH
    assert "not_selected" not in answer
    assert "others" not in answer


def test_the_keys_of_json_are_those_that_are_documented(folder: Path) -> None:
    page = (GOLDEN.parents[2] / "docs" / "operations.md").read_text()
    table, _, behind = page[page.index("| in `report --json` |") :].partition("\n\n")
    told: list[str] = []
    for line in table.splitlines()[2:]:
        of_rows = line.partition("| a list of amounts,")[2].partition(", null")[0]
        told += re.findall(r"`(\w+)`", line.split("|")[1]) + re.findall(r"`(\w+)`", of_rows.partition(":")[2])
    words = ("--by", ",".join(FIELDS), "--top", "1", "--account", "m*")
    answer = json.loads(printed(folder, "--json", *words))
    assert sorted(told) == sorted({*answer, *answer["rows"][0], *answer["total"]})
    kinds = re.findall(r"`(\w+)`", behind[behind.index("`kind` (") :].partition(")")[0])[1:]
    lines = list(csv.DictReader(io.StringIO(printed(folder, "--csv", *words))))
    assert list(lines[0]) == ["kind", *FIELDS, *answer["total"]]
    assert [line["kind"] for line in lines] == kinds


def test_what_has_no_name_is_selected_as_it_is_printed(folder: Path) -> None:
    assert printed(folder, "--account", "(none)") == printed(folder, "--account", "")
    rows = json.loads(printed(folder, "--json", "--account", "(none)", "--account", "bio*"))["rows"]
    assert [(row["account"], row["energy_mj"]) for row in rows] == [(None, 2 * KWH)]


@pytest.mark.parametrize(
    ("small_mj", "small_s", "cells"),
    [
        (KWH, 3600, ["1.000", "1.00"]),
        (KWH // 1000, 360, ["0.0010", "0.10"]),
        (3_470_000, 10, ["0.00096", "0.0028"]),
        (347_000, 1, ["0.000096", "0.00028"]),
        (1, 0.001, ["<0.000001", "<0.000001"]),
    ],
)
def test_small_figures_beside_big_ones_are_not_shown_as_nothing(
    folder: Path, small_mj: int, small_s: float, cells: list[str]
) -> None:
    with closing(SqliteStore(folder / "state.db")) as store:
        small = Charges(B, {key(4): Millijoules(small_mj)}, held_ns=round(small_s * 1e9))
        charge(store, "2026-11-22", small, notes=(note(4, account="small", partition="gpu", user="sam"),))
    lines = [line.split() for line in printed(folder).splitlines()]
    (small_row,) = (line for line in lines if line[:1] == ["small"])
    assert small_row[1:3] == cells
    assert small_row[-1] == ("2.0%" if small_mj == KWH else "<0.1%")
    assert {"37", "60"} == {line[at].partition(".")[0] for line in lines if line[:1] == ["ml"] for at in (1, 2)}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "soon"],
        ["--since", "2026-02-30"],
        ["--since", "0d"],
        ["--since", "9999w"],
        ["--since", "2026-11-24"],
        ["--since", "2026-11-20", "--until", "2026-11-19"],
        ["--by", "acount"],
        ["--by", ""],
        ["--top", "0"],
        ["--csv", "--json"],
        ["--prometheus", "http://localhost:9090"],
        ["--cluster", "alpha"],
    ],
)
def test_wrong_use_is_exit_status_2(folder: Path, arguments: list[str]) -> None:
    result = run(folder, *arguments)
    assert result.exit_code == 2, result.output
    assert "Error: " in result.output


def test_days_of_which_nothing_is_known(folder: Path) -> None:
    result = run(folder, "--since", "today")
    assert isinstance(result.exception, StoreError)
    assert str(result.exception).endswith(
        "nothing was metered from 2026-11-23 to 2026-11-23; this ledger knows 2026-11-20 to 2026-11-21"
    )


def test_days_that_were_never_metered_are_not_claimed(folder: Path) -> None:
    heading = printed(folder, "--since", "2024-01").splitlines()[0]
    assert heading.startswith("GPU energy of 2024-01-01 to 2026-11-23 (metered since 2026-11-20), by account")
    assert "metered" not in printed(folder, "--since", "2026-11-20")
    told = [json.loads(printed(folder, "--json", "--since", day))["metered_since"] for day in ("2024-01", "2026-11-21")]
    assert told == ["2026-11-20", "2026-11-21"]
    assert "metered" not in printed(folder, "--csv", "--since", "2024-01")


def test_a_ledger_that_was_set_aside_is_spoken_of(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"damaged" * 1000)
    Path(f"{path}-wal").write_bytes(b"damaged")
    with closing(SqliteStore(path, lambda: 1e9)) as store:
        charge(store, "2026-11-20", Charges(A, idle_mj=Millijoules(KWH)))
    result = CliRunner().invoke(
        cli, ["report", "--state-dir", str(tmp_path), "--csv", "--since", "2026-11-20", "--until", "2026-11-20"]
    )
    aside = "damaged, and set aside by the agent: what it had metered until then is not in this report"
    assert result.stderr == f"wattkeeper: {path}.corrupt-20010909T014640Z: {aside}\n"
    assert result.stdout.startswith("kind,account,")


@pytest.mark.parametrize(
    ("word", "first", "last"),
    [
        ("today", "2026-03-01", "2026-03-01"),
        ("yesterday", "2026-02-28", "2026-02-28"),
        ("1d", "2026-03-01", "2026-03-01"),
        ("7d", "2026-02-23", "2026-03-01"),
        ("2w", "2026-02-16", "2026-03-01"),
        ("2026-02", "2026-02-01", "2026-02-28"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2025-12", "2025-12-01", "2025-12-31"),
        ("2026-02-03", "2026-02-03", "2026-02-03"),
    ],
)
def test_days_as_people_name_them(word: str, first: str, last: str) -> None:
    days = period.read_days(word, date(2026, 3, 1))
    assert days is not None
    assert (days.first.isoformat(), days.last.isoformat()) == (first, last)


@pytest.mark.parametrize("word", ["", "d", "-1d", "2026", "2026-1", "7D", "20261101", "2026-11-01T00"])
def test_what_names_no_day(word: str) -> None:
    assert period.read_days(word, date(2026, 3, 1)) is None


def test_a_day_of_25_hours_ends_where_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        hours = [
            (period.begins_at(date(2026, month, day + 1)) - period.begins_at(date(2026, month, day))) / 3600
            for month, day in ((3, 29), (10, 25), (11, 1))
        ]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert hours == [23, 25, 24]


@pytest.mark.parametrize(
    ("begun", "offered"),
    [
        ("", ["account", "user", "partition", "day"]),
        ("a", ["account"]),
        ("account,", ["account,user", "account,partition", "account,day"]),
        ("account,d", ["account,day"]),
    ],
)
def test_by_is_completed(begun: str, offered: list[str]) -> None:
    complete = ShellComplete(cli, {}, "wattkeeper", "_WATTKEEPER_COMPLETE")
    assert [item.value for item in complete.get_completions(["report", "--by"], begun)] == offered


def test_long_work_says_so_on_a_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "_PATIENCE_S", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with report._progress() as tell:
        tell("reading it")
        tell("reading")
    said = capsys.readouterr().err
    assert said == "\rreading it (0 s)\rreading (0 s)   \r                \r"
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with report._progress() as tell:
        tell("reading it")
    assert capsys.readouterr().err == ""
