"""A ledger that cannot be read when the agent starts: what came before is not known, and so is no total of it shown.

A total that began at 0, and grew to what the ledger has once that can be read, or at the next start, would be counted
as used twice by all who scrape it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.one_node import OneNode, gpu

from wattkeeper.agent.ledger import REOPEN_S
from wattkeeper.exporters.prometheus import Exporter
from wattkeeper.ledger import store
from wattkeeper.model import GpuUuid

A = GpuUuid("GPU-0")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else has the file for themselves."""
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("PRAGMA locking_mode = EXCLUSIVE")
    lock.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        lock.execute("ROLLBACK")
        lock.close()


def totals(node: OneNode) -> tuple[int | None, int | None, int | None]:
    """Millijoules of account a, and idle and unattributed ones; None where none is shown."""
    snapshot = node.snapshot()
    account = snapshot.accounts.get(("a", ""))
    (view,) = snapshot.gpus
    return (None if account is None else account.energy_mj), view.idle_mj, view.unattributed_mj


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OneNode:
    """With 18 GJ of account a, and 6 MJ idle, in its ledger, and no agent."""
    monkeypatch.setattr(store, "BUSY_TIMEOUT_S", 0.1)
    node = OneNode(gpu(0), folder=tmp_path)
    node.tick()
    node.prolog(1, "0", SLURM_JOB_ACCOUNT="a")
    node.go_on(36_000, GPU_0=18_000_000_000)
    node.epilog(1)
    node.go_on(60, GPU_0=6_000_000)
    node.tick()
    node.ledger.close()
    return node


def test_no_total_is_shown_until_the_ledger_can_be_read_and_then_the_whole(node: OneNode, tmp_path: Path) -> None:
    with locked(tmp_path / "state.db"):
        node.start()
        node.tick()
        node.prolog(2, "0", SLURM_JOB_ACCOUNT="a")
        node.go_on(50, GPU_0=20_000_000)
        node.tick()
        assert totals(node) == (None, None, None)
        page = Exporter(node.snapshot, "full", node.clock.mono).render("Prometheus")[0].decode()
        assert "wattkeeper_account_energy_joules_total{" not in page
        assert "wattkeeper_gpu_idle_energy_joules_total{" not in page
        assert 'wattkeeper_job_gpu_energy_joules_total{gpu="0",slurm_job_id="2"}' in page  # this agent knows all of it
    node.go_on(REOPEN_S, GPU_0=1_000_000)
    node.tick()
    assert node.ledger.alarm is None
    shown = totals(node)
    assert shown == (18_021_000_000, 6_000_000, 0)
    node.epilog(2)
    node.ledger.close()
    node.start()
    assert totals(node) == shown


def test_what_only_the_agent_knows_begins_then(node: OneNode, tmp_path: Path) -> None:
    """An account that is new is shown at 0 first, as ever."""
    with locked(tmp_path / "state.db"):
        node.start()
        node.tick()
        node.prolog(2, "0", SLURM_JOB_ACCOUNT="b")
        node.go_on(REOPEN_S, GPU_0=1_000_000)
        node.tick()
    node.go_on(REOPEN_S)
    node.tick()
    view = node.snapshot().accounts["b", ""]
    assert (view.energy_mj, view.base_mj, view.born_mono) == (1_000_000, 0, node.clock.mono())
    assert totals(node)[0] == 18_000_000_000


def test_energy_between_the_ledgers_last_word_and_the_agents_first_is_nobodys(node: OneNode, tmp_path: Path) -> None:
    node.go_on(600, GPU_0=5_000_000)
    with locked(tmp_path / "state.db"):
        node.start()
        node.tick()
    node.go_on(REOPEN_S)
    node.tick()
    shown = totals(node)
    assert shown == (18_000_000_000, 6_000_000, 5_000_000)
    node.ledger.close()
    node.start()
    assert totals(node) == shown
