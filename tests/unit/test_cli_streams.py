"""Where the output cannot be written, or its encoding lacks a letter: the command as a process of its own."""

import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from tests.lab.config import wattkeeper
from tests.unit.test_report import A, charge, key, note

from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import Charges
from wattkeeper.units import Millijoules


@pytest.fixture
def report(tmp_path: Path) -> list[str]:
    """The words of a report on a ledger of one job, of account zöe."""
    with closing(SqliteStore(tmp_path / "state.db")) as store:
        charge(store, "2026-11-20", Charges(A, {key(1): Millijoules(7_000)}), notes=(note(1, account="zöe"),))
    return ["report", "--since", "2026-11-20", "--until", "2026-11-20", "--state-dir", str(tmp_path)]


def run(words: list[str], redirected: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    shell = ["/bin/sh", "-c", f'"$@" {redirected}', "sh", wattkeeper(), *words]
    return subprocess.run(shell, capture_output=True, env={**os.environ, **environment}, timeout=60)


@pytest.mark.parametrize("more", [[], ["--csv"], ["--json"], ["--help"]])
def test_a_full_disk_is_one_line(report: list[str], more: list[str]) -> None:
    done = run([*report, *more], ">/dev/full")
    assert done.stderr == (
        b"wattkeeper: standard output: cannot be written (No space left on device): make room, or send it elsewhere\n"
    )
    assert done.returncode == 1


@pytest.mark.parametrize("more", [[], ["--csv"], ["--help"]])
def test_nobody_is_told_that_they_closed_the_pipe(report: list[str], more: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([wattkeeper(), *report, *more], stdout=writing, stderr=subprocess.PIPE, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("more", [[], ["--csv"]])
def test_an_output_that_is_closed_is_not_wanted(report: list[str], more: list[str]) -> None:
    done = run([*report, *more], ">&-")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [["report", "--help"], ["explain", "--help"], ["job", "--help"]])
def test_what_an_encoding_lacks_is_escaped(words: list[str]) -> None:
    done = run(words, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Usage: wattkeeper" in done.stdout


def test_a_csv_is_whole_in_any_encoding(report: list[str]) -> None:
    done = run([*report, "--csv"], PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\njobs,z\\xf6e,7000,7.0," in done.stdout
    assert done.stdout.endswith(b"\nunattributed,,0,0.0,,,,0.0\n")


def test_an_error_that_cannot_be_told_is_still_one(report: list[str], tmp_path: Path) -> None:
    words = [*report[:-1], str(tmp_path / "none")]
    for unbuffered in ("", "1"):
        assert run(words, "2>/dev/full", PYTHONUNBUFFERED=unbuffered).returncode == 1
    assert run(words, "2>&-").returncode == 1
