"""``wattkeeper report`` as root, on a ledger that another user wrote: it has that user's rights."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.lab.config import wattkeeper
from tests.unit.test_report import A, charge, key, note

from wattkeeper.ledger.store import SqliteStore
from wattkeeper.model import Charges
from wattkeeper.units import Millijoules

AGENT_UID = 64_001

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def ledger(folder: Path, uid: int) -> Path:
    folder.mkdir(mode=0o700)
    path = folder / "state.db"
    with closing(SqliteStore(path)) as store:
        charge(store, "2026-11-20", Charges(A, {key(1): Millijoules(7_000)}), notes=(note(1, account="secret"),))
    for file in (*folder.iterdir(), folder):
        os.chown(file, uid, uid)
    return path


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that anybody may enter."""
    with tempfile.TemporaryDirectory(prefix="wk-report-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def report(folder: Path) -> subprocess.CompletedProcess[str]:
    words = ["report", "--since", "2026-11-01", "--until", "2026-11-22", "--csv", "--state-dir", str(folder)]
    return subprocess.run([wattkeeper(), *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("uid", [AGENT_UID, 0])
def test_root_reads_a_ledger_whoever_wrote_it(place: Path, uid: int) -> None:
    ledger(place / "state", uid)
    done = report(place / "state")
    assert "jobs,secret," in done.stdout, done.stderr


def test_who_may_not_enter_the_folder_is_told_what_to_do(place: Path) -> None:
    ledger(place / "state", 0)
    words = ["report", "--state-dir", str(place / "state")]
    code = (
        "import os, sys; from wattkeeper.cli import main, report\n"
        f"os.setgroups([]); os.setgid({AGENT_UID}); os.setuid({AGENT_UID})\n"
        f"sys.argv = ['wattkeeper', *{words}]; main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    mend = "read it as root (sudo), or ask the cluster's Prometheus (--prometheus URL)"
    told = f"wattkeeper: {place}/state/state.db: permission denied; it has every user's jobs: {mend}\n"
    assert done.stderr == told


def test_a_link_of_its_writers_leads_to_nothing_that_is_roots(place: Path) -> None:
    target = ledger(place / "root", 0)
    state = place / "state"
    state.mkdir(mode=0o700)
    (state / "state.db").symlink_to(target)
    for path in (state, state / "state.db"):
        os.chown(path, AGENT_UID, AGENT_UID, follow_symlinks=False)
    done = report(state)
    assert "secret" not in done.stdout
    assert "permission denied" in done.stderr
    assert done.returncode == 1


def test_a_copy_that_its_owner_cannot_come_to_is_told_with_the_mend(place: Path) -> None:
    """As ``cp -a`` into a folder of root's makes it."""
    roots = place / "root"
    roots.mkdir(mode=0o700)
    path = ledger(roots / "copy", AGENT_UID)
    done = report(path.parent)
    assert done.stderr == (
        f"wattkeeper: {path}: belongs to uid {AGENT_UID}, by whose rights it is read, and who may not enter {roots}; "
        f"give a copy to root (chown root {path}), or move it elsewhere\n"
    )
    assert (done.returncode, done.stdout) == (1, "")
    os.chown(path, 0, 0)
    assert "jobs,secret," in report(path.parent).stdout


def test_a_copy_of_a_ledger_that_is_written_is_read_with_its_log(place: Path) -> None:
    roots = place / "root"
    roots.mkdir(mode=0o700)
    with closing(SqliteStore(place / "state.db")) as store:
        charge(store, "2026-11-20", Charges(A, {key(1): Millijoules(7_000)}), notes=(note(1, account="secret"),))
        for file in place.glob("state.db*"):
            shutil.copy(file, roots)
    for file in roots.iterdir():
        os.chown(file, AGENT_UID, AGENT_UID)
    os.chown(roots / "state.db", 0, 0)
    assert "jobs,secret," in report(roots).stdout
