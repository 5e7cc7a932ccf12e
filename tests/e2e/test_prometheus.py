"""What the real Prometheus makes of three agents, and what slurmctld hears of them: nothing."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from tests.e2e.agents import metrics_page
from tests.lab import Lab, wait_until
from tests.lab.processes import program
from tests.lab.prometheus import Prometheus
from tests.lab.slurm import Rpcs
from tests.lab.waiting import record

QUIET_S = 25
"""For how long slurmctld is watched here; nothing in the agents goes by a longer clock than ten seconds."""

OWN_CHATTER = {"REQUEST_STATS_INFO", "MESSAGE_NODE_REGISTRATION_STATUS"}
"""What slurmctld hears without agents: our own sdiag, and nodes that register again."""


@dataclass(frozen=True)
class Watched:
    """Jobs that run, and slurmctld's count of messages when all of them did."""

    lab: Lab
    jobs: tuple[int, ...]
    rpcs: Rpcs
    since: float

    @property
    def prometheus(self) -> Prometheus:
        assert self.lab.prometheus is not None
        return self.lab.prometheus

    def energy_j(self, job: int) -> float:
        """A job's energy as its nodes' agents tell it; nodes that do not know it tell nothing."""
        told = 0.0
        for node in self.lab.nodes.values():
            seen = [row for row in node.agent.get("/v1/status")["jobs"] if row["job_id"] == job]
            told += sum(gpu["energy_j"] or 0.0 for row in seen for gpu in row["gpus"])
        return told


def _begun(lab: Lab, job: int) -> bool:
    return "begun" in lab.output(job)


@pytest.fixture(scope="module")
def watched(lab: Lab) -> Iterator[Watched]:
    """Until the last test here nobody asks slurmctld anything."""
    requests = (
        ("-N2", "--gres=gpu:2", "--comment=power=250W"),
        ("-N1", "--gres=gpu:1", "--comment=power=60%"),
        ("-N1", "--gres=gpu:4", "--comment=no wish"),
    )
    jobs = tuple(lab.sbatch("echo begun; sleep 300", *options) for options in requests)
    for job in jobs:
        wait_until(partial(_begun, lab, job), 15, "the job's script runs", note=False)
        lab.wait_running(job)
    yield Watched(lab, jobs, lab.sdiag(), time.monotonic())
    lab.cancel_all()
    lab.wait_idle()


def test_scrapes_every_agent(watched: Watched) -> None:
    up = {"node1": "up", "node2": "up", "node3": "up"}
    wait_until(lambda: watched.prometheus.targets() == up, 7, "Prometheus scrapes every agent")
    assert len(watched.prometheus.query("wattkeeper_gpu_power_limit_watts")) == 12


def test_adds_up_the_energy_of_a_job(watched: Watched) -> None:
    expression = "sum by (slurm_job_id) (wattkeeper_job_gpu_energy_joules_total)"

    def summed() -> dict[str, float]:
        rows = watched.prometheus.query(expression)
        return {labels["slurm_job_id"]: value for labels, value in rows if value > 0}

    wanted = {str(job) for job in watched.jobs}
    wait_until(lambda: wanted <= summed().keys(), 5, "every job's energy is in Prometheus")
    low = {job: watched.energy_j(job) for job in watched.jobs}
    wait_until(lambda: all(summed()[str(job)] >= low[job] for job in watched.jobs), 5, "and keeps up", note=False)
    found = summed()
    assert all(low[job] <= found[str(job)] <= watched.energy_j(job) + 0.001 for job in watched.jobs)
    two_nodes = watched.prometheus.query(
        f'count by (slurm_job_id) (wattkeeper_job_gpu_energy_joules_total{{slurm_job_id="{watched.jobs[0]}"}})'
    )
    assert [value for _, value in two_nodes] == [4]


def test_knows_the_caps_of_jobs(watched: Watched) -> None:
    rows = watched.prometheus.query("wattkeeper_job_gpu_power_cap_watts")
    caps = {(labels["slurm_job_id"], value) for labels, value in rows}
    assert {(str(job), cap) for job, cap in zip(watched.jobs, (250, 420, 700), strict=True)} <= caps


def _rise(selector: str) -> str:
    return f"(sum by (node) ({selector}) - sum by (node) ({selector} offset 3s))"


def test_every_joule_is_somebodys(watched: Watched) -> None:
    """What jobs, idle GPUs and nobody are charged with adds up to what the devices counted in the same time."""
    device, idle, nobodys, jobs = (
        _rise(f"wattkeeper_{name}")
        for name in (
            "gpu_energy_joules_total",
            "gpu_idle_energy_joules_total",
            "gpu_unattributed_energy_joules_total",
            f'job_gpu_energy_joules_total{{slurm_job_id=~"{"|".join(map(str, watched.jobs))}"}}',
        )
    )

    def unexplained() -> dict[str, float]:
        return {
            labels["node"]: value
            for labels, value in watched.prometheus.query(f"{device} - {idle} - {nobodys} - {jobs}")
        }

    # at its first scrape Prometheus was shown the jobs' counters at their beginning, 0 (docs/decisions/zero-first.md)
    of_jobs = f'wattkeeper_job_gpu_energy_joules_total{{slurm_job_id=~"{"|".join(map(str, watched.jobs))}"}}'
    all_run = f"count({of_jobs} offset 3s > 0) == count({of_jobs})"
    wait_until(lambda: watched.prometheus.query(all_run), 8, "the jobs' counters run", note=False)
    wait_until(lambda: len(unexplained()) == 3, 8, "Prometheus has looked for 3 s", note=False)
    assert unexplained() == pytest.approx({"node1": 0, "node2": 0, "node3": 0}, abs=0.01)
    assert all(value > 0 for expression in (device, jobs) for _, value in watched.prometheus.query(expression))


def test_promtool_has_nothing_to_say_of_a_live_page(watched: Watched) -> None:
    for node in watched.lab.nodes.values():
        done = subprocess.run(
            [program("promtool"), "check", "metrics"], input=metrics_page(node), capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_slurmctld_hears_nothing_of_the_agents(watched: Watched) -> None:
    wait_until(lambda: time.monotonic() - watched.since >= QUIET_S, QUIET_S, "slurmctld is watched", note=False)
    scraped = watched.prometheus.query(f"min(sum_over_time(up[{QUIET_S}s]))")[0][1]
    watched_s = time.monotonic() - watched.since
    heard = (watched.lab.sdiag() - watched.rpcs).by_type
    record("slurmctld watched beside three agents with jobs", watched_s, 60)
    assert watched_s >= QUIET_S
    assert scraped >= QUIET_S / 2  # the agents were awake all the while
    assert heard.keys() <= OWN_CHATTER
    assert heard["REQUEST_STATS_INFO"] == 1
    assert heard.get("MESSAGE_NODE_REGISTRATION_STATUS", 0) <= 3
