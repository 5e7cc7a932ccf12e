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
from wattkeeper.agent.ledger import QUIET_WRITE_S

QUIET_S = 25
"""For how long slurmctld is watched here; nothing in the agents goes by a longer clock than ten seconds."""

AT_MOST_S = int(QUIET_WRITE_S) + 2
"""So long after the device counted it energy is charged: when it is written, at a tick and a scrape of one second."""


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


def _counted(lab: Lab) -> Rpcs:
    """What slurmctld has counted, once it has counted all that it has answered."""
    earlier, later = None, lab.sdiag()
    while earlier is None or (later - earlier).asked:
        time.sleep(0.5)
        earlier, later = later, lab.sdiag()
    return later


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
    yield Watched(lab, jobs, _counted(lab), time.monotonic())
    lab.cancel_all()
    lab.wait_idle()


def test_scrapes_every_agent(watched: Watched) -> None:
    up = {"node1": "up", "node2": "up", "node3": "up"}
    wait_until(lambda: watched.prometheus.targets() == up, 7, "Prometheus scrapes every agent")
    shown = "wattkeeper_gpu_power_limit_watts"
    wait_until(lambda: len(watched.prometheus.query(shown)) == 12, 7, "every GPU is there", note=False)


def test_adds_up_the_energy_of_a_job(watched: Watched) -> None:
    expression = "sum by (slurm_job_id) (wattkeeper_job_gpu_energy_joules_total)"

    def summed() -> dict[str, float]:
        rows = watched.prometheus.query(expression)
        return {labels["slurm_job_id"]: value for labels, value in rows if value > 0}

    wanted = {str(job) for job in watched.jobs}
    wait_until(lambda: wanted <= summed().keys(), AT_MOST_S, "every job's energy is in Prometheus")
    low = {job: watched.energy_j(job) for job in watched.jobs}

    def kept_up() -> dict[str, float]:
        """Empty where it is behind, or lacks a node whose scrape came late."""
        found = summed()
        return found if all(found.get(str(job), 0) >= low[job] for job in watched.jobs) else {}

    found = wait_until(kept_up, AT_MOST_S, "and keeps up", note=False)
    assert all(found[str(job)] <= watched.energy_j(job) + 0.001 for job in watched.jobs)
    gpus = f'count(wattkeeper_job_gpu_energy_joules_total{{slurm_job_id="{watched.jobs[0]}"}}) == 4'
    wait_until(lambda: watched.prometheus.query(gpus), AT_MOST_S, "a job of two nodes", note=False)


def test_knows_the_caps_of_jobs(watched: Watched) -> None:
    wanted = {(str(job), cap) for job, cap in zip(watched.jobs, (250, 420, 700), strict=True)}

    def shown() -> bool:
        rows = watched.prometheus.query("wattkeeper_job_gpu_power_cap_watts")
        return wanted <= {(labels["slurm_job_id"], value) for labels, value in rows}

    wait_until(shown, 7, "every job's cap is there", note=False)


def test_every_joule_is_somebodys(watched: Watched) -> None:
    """What jobs, idle GPUs and nobody are charged with is what the devices counted, and is never long behind it."""
    of_jobs = f'wattkeeper_job_gpu_energy_joules_total{{slurm_job_id=~"{"|".join(map(str, watched.jobs))}"}}'
    charged = ("wattkeeper_gpu_idle_energy_joules_total", "wattkeeper_gpu_unattributed_energy_joules_total", of_jobs)
    device = "sum by (node) (wattkeeper_gpu_energy_joules_total)"
    owed = "(" + " - ".join([device, *(f"sum by (node) ({each})" for each in charged)]) + f")[{AT_MOST_S}s:1s]"
    # whoever has just begun to scrape is shown a job's counter at 0 first (docs/decisions/zero-first.md)
    seen = f"count({of_jobs} offset {2 * AT_MOST_S}s > 0) == count({of_jobs})"
    wait_until(lambda: watched.prometheus.query(seen), 2 * AT_MOST_S, "Prometheus has looked for long", note=False)

    def asked(expression: str) -> dict[str, float]:
        return {labels["node"]: value for labels, value in watched.prometheus.query(expression)}

    lost = f"min_over_time({owed}) - min_over_time({owed} offset {AT_MOST_S}s)"
    none = pytest.approx({"node1": 0, "node2": 0, "node3": 0}, abs=0.01)
    # a scrape that came late may have missed the second after a write, when least is owed
    wait_until(lambda: asked(lost) == none, 2 * AT_MOST_S, "nothing is lost", note=False)
    drawn = f"sum by (node) (max_over_time(wattkeeper_gpu_power_watts[{AT_MOST_S}s])) * {AT_MOST_S}"
    behind = asked(f"(max_over_time({owed}) - min_over_time({owed})) / ({drawn})")
    assert len(behind) == 3
    assert all(0 < part <= 1 for part in behind.values()), behind
    rose = asked(f"sum by (node) ({of_jobs}) - sum by (node) ({of_jobs} offset {AT_MOST_S}s)")
    assert all(joules > 0 for joules in rose.values())


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
    heard = watched.lab.sdiag() - watched.rpcs
    record("slurmctld watched beside three agents with jobs", watched_s, 60)
    assert watched_s >= QUIET_S
    assert scraped >= QUIET_S / 2  # the agents were awake all the while
    assert heard.asked == {}
    assert heard.by_type.get("MESSAGE_NODE_REGISTRATION_STATUS", 0) <= 3
