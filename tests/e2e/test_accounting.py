"""Sixty short jobs on three nodes: Prometheus, the ledgers and the end-of-job records agree on who used what.

Accounts come from `sbatch --account`: without slurmdbd nobody checks them, and the Prolog has them all the same.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.chaos.books import Record, read_books, read_records
from tests.lab import Lab, LabSpec, NodeSpec, wait_until
from tests.lab.prometheus import Prometheus
from tests.lab.spec import REPO
from tests.lab.waiting import record

RULES = tuple(REPO / "deploy" / "prometheus" / name for name in ("rules.yml", "alerts.yml"))
SCRAPE_S = 2
WINDOW_S = 300.0
"""Of the rule that is asked: all jobs are in it."""

ARRAYS = (  # account, partition, seconds, GPUs of each of ten jobs
    ("astro", "gpu", 0.2, 1),
    ("astro", "debug", 2.5, 1),
    ("ml-vision", "gpu", 2.2, 2),
    ("ml-vision", "gpu", 0.1, 1),
    ("physics", "debug", 0.3, 1),
    ("physics", "gpu", 3.0, 1),
)
JOBS = 10 * len(ARRAYS)
Sums = dict[tuple[str, str], int]


@dataclass(frozen=True)
class Used:
    """What was used after all jobs, by account and partition, in millijoules: by each source of its own."""

    server: Prometheus
    ledgers: Sums
    jobs: Sums  # the ledgers' jobs, with the account that their record has
    records: tuple[Record, ...]

    def by_rule(self) -> dict[tuple[str, str], float]:
        """As Prometheus has it now."""
        rows = self.server.query("wattkeeper:account_energy_joules:increase5m")
        return {(labels.get("account", ""), labels.get("partition", "")): 1000 * value for labels, value in rows}


@pytest.fixture(scope="module")
def used() -> Iterator[Used]:
    with Lab(LabSpec(nodes=(NodeSpec(),) * 3, prometheus=True, scrape_s=SCRAPE_S, rules=RULES)) as lab:
        for number, node in enumerate(lab.nodes.values(), start=1):
            for minor in range(4):
                node.simulation.load(minor, 0.2 * number + 0.1 * minor)
        prometheus = lab.prometheus
        assert prometheus is not None
        wait_until(lambda: set(prometheus.targets().values()) == {"up"}, 7, "every agent is scraped", note=False)
        start = time.monotonic()
        _run_jobs(lab)
        took = time.monotonic() - start
        yield _look(lab, prometheus)
        record("sixty short jobs on three nodes, and what they used", took, WINDOW_S / 3)


def _run_jobs(lab: Lab) -> None:
    for account, partition, seconds, gpus in ARRAYS:
        lab.sbatch(
            f"sleep {seconds}",
            *(f"--account={account}", f"--partition={partition}", f"--gres=gpu:{gpus}", "-N1", "--array=1-10"),
            f"--output={lab.files.out}/%j.out",
        )
    wait_until(lambda: not lab.squeue("-h").strip(), 60, "sixty jobs have ended", every_s=0.1, note=False)

    def recorded() -> int:
        return sum(len(read_records(node.files.state_dir)) for node in lab.nodes.values())

    wait_until(lambda: recorded() >= JOBS, 5, "every job has its record", note=False)


def _look(lab: Lab, server: Prometheus) -> Used:
    ledgers: Counter[tuple[str, str]] = Counter()
    jobs: Counter[tuple[str, str]] = Counter()
    records: list[Record] = []
    for node in lab.nodes.values():
        books, found = read_books(node.files.state_dir), read_records(node.files.state_dir)
        whose = {one.job_id: (one.account or "", one.partition or "") for one in found}
        records += found
        ledgers.update(books.accounts)
        for (job_id, _), energy_mj in books.jobs.items():
            jobs[whose[job_id]] += energy_mj
    return Used(server, dict(ledgers), dict(jobs), tuple(records))


def test_half_of_the_jobs_were_shorter_than_a_scrape_interval(used: Used) -> None:
    assert len(used.records) == JOBS
    assert len({one.job_id for one in used.records}) == JOBS
    short = sum(one.seconds < SCRAPE_S for one in used.records)
    assert JOBS // 4 <= short <= JOBS // 2  # a loaded machine may stretch some


def test_the_recording_rule_has_what_the_ledgers_have(used: Used) -> None:
    accounts = {(account, partition) for account, partition, _, _ in ARRAYS}
    assert used.ledgers.keys() == accounts
    assert all(energy_mj > 0 for energy_mj in used.ledgers.values())
    expected = pytest.approx(used.ledgers, rel=0.01)
    rule_s = 3 * SCRAPE_S  # zero first, then what is so, then the rule
    wait_until(lambda: used.by_rule() == expected, rule_s, f"the rule has {used.ledgers}", note=False)
    for account, energy_mj in used.by_rule().items():
        print(f"{account}: {used.ledgers[account] / 1e6:.3f} kJ in the ledgers, {energy_mj / 1e6:.3f} in Prometheus")


def test_the_records_have_what_the_ledgers_have_to_the_millijoule(used: Used) -> None:
    summed: Counter[tuple[str, str]] = Counter()
    for one in used.records:
        assert one.energy_mj is not None, f"job {one.job_id} was never charged"
        summed[one.account or "", one.partition or ""] += one.energy_mj
    assert dict(summed) == used.ledgers == used.jobs
