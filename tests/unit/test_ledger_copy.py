"""A copy of the ledger of an agent that runs, made as docs/operations.md says."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
from tests.lab.config import wattkeeper
from tests.unit.test_report import A, charge, key, note

from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import Charges
from wattkeeper.units import Millijoules

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[SqliteStore]:
    """A ledger that is open, and has its jobs in the log alone."""
    with closing(SqliteStore(tmp_path / "state" / "state.db")) as store:
        charge_today(store, 7_000)
        yield store


def charge_today(store: SqliteStore, energy_mj: int) -> None:
    jobs = (note(1, account="secret"),)
    charge(store, date.today().isoformat(), Charges(A, {key(1): Millijoules(energy_mj)}), notes=jobs)  # noqa: DTZ011


def commands(tmp_path: Path) -> str:
    """What the page says, for the user who tests."""
    found: list[str] = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (text,) = [block for block in found if "VACUUM INTO" in block]
    for old, new in {
        " -o wattkeeper": "",
        "runuser -u wattkeeper -- /opt/wattkeeper/bin/python": sys.executable,
        "/var/lib/wattkeeper": str(tmp_path / "state"),
        "/srv/ledger-copy": str(tmp_path / "copy"),
        "\nwattkeeper report": f"\n{wattkeeper()} report --json",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return text


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-ec", command], capture_output=True, text=True, timeout=60)


def test_it_has_what_stands_in_the_log_and_the_agent_goes_on(agent: SqliteStore, tmp_path: Path) -> None:
    done = run(commands(tmp_path))
    assert done.stderr == ""
    assert '"energy_mj": 7000' in done.stdout
    charge_today(agent, 500)
    again = run(f"{wattkeeper()} report --json --state-dir {tmp_path}/state")
    assert '"energy_mj": 7500' in again.stdout, again.stderr
    copied = run(f"{wattkeeper()} report --json --state-dir {tmp_path}/copy")
    assert '"energy_mj": 7000' in copied.stdout, copied.stderr


def test_a_file_copied_alone_lacks_it(agent: SqliteStore, tmp_path: Path) -> None:
    """As the page warns."""
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "state" / "state.db", tmp_path / "copy")
    done = run(f"{wattkeeper()} report --json --state-dir {tmp_path}/copy")
    assert "this ledger is still empty" in done.stderr


def test_no_copy_is_written_over(agent: SqliteStore, tmp_path: Path) -> None:
    assert run(commands(tmp_path)).returncode == 0
    done = run(commands(tmp_path))
    assert done.returncode != 0
    assert "output file already exists" in done.stderr


def test_one_of_an_agent_that_is_stopped(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "state" / "state.db")) as store:
        charge_today(store, 7_000)
    assert '"energy_mj": 7000' in run(commands(tmp_path)).stdout
