"""A GPU that several jobs hold: its energy goes to those who use it, and is billed once."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.chaos.books import read_books, read_records
from tests.e2e.agents import TICK_S, afresh, hook_environment, one_node, start_afresh
from tests.lab import Lab, Node, NodeSpec, wait_until
from wattkeeper.simulator import Process

WATCHED_S = 2.0
COUNTED = "SELECT energy_mj FROM watermarks WHERE uuid = ?"


@pytest.fixture(scope="module")
def _shards() -> Iterator[Lab]:
    with one_node(NodeSpec(shards=8)) as lab:
        yield lab


@pytest.fixture
def shards(_shards: Lab) -> Iterator[Lab]:
    """Four GPUs of two shards each."""
    yield from afresh(_shards)


def _process_of(lab: Lab, job: int) -> int:
    """The pid of the one process of a job that `_begin` began."""
    found = wait_until(lambda: re.search(r"pid (\d+)", lab.output(job)), 10, "the job's script runs", note=False)
    assert found
    return int(found[1])


def _begin(lab: Lab) -> int:
    return lab.sbatch('echo "pid $$"; exec sleep 120', "--gres=shard:1")


def _accounted(node: Node, uuid: str) -> tuple[dict[int, int], int]:
    """What each job was billed of a GPU, and up to which count of the GPU's everything is accounted for."""
    with closing(sqlite3.connect(f"file:{node.files.state_dir / 'state.db'}?mode=ro", uri=True)) as db:
        db.execute("BEGIN")
        jobs = dict(db.execute("SELECT job_id, energy_mj FROM job_energy WHERE uuid = ?", (uuid,)).fetchall())
        return jobs, db.execute(COUNTED, (uuid,)).fetchone()[0]


def _accounted_anew(node: Node, uuid: str) -> tuple[dict[int, int], int]:
    """The same, once the ledger knows the energy of a moment that was still to come.

    What an admin does is written at once, and with it what ticks left to be written later.
    """
    up_to = node.simulation.gpu(0).counter_mj

    def known() -> bool:
        node.wattkeeper("resume", "--gpu", "3")
        return _accounted(node, uuid)[1] > up_to

    wait_until(known, 4 * TICK_S, "the ledger knows", note=False)
    return _accounted(node, uuid)


def test_two_holders_are_billed_by_their_use_of_the_gpu(shards: Lab) -> None:
    """90 % and 10 %: nearer to nine to one than to one to one; the one before the other tells them apart."""
    node = shards.node(1)
    busy, calm = _begin(shards), _begin(shards)
    processes = [Process(_process_of(shards, busy), use=0.9), Process(_process_of(shards, calm), use=0.1)]
    uuid = node.simulation.gpu(0).uuid
    assert sorted(node.agent.get("/v1/status")["gpus"][0]["holders"]) == sorted([str(busy), str(calm)])
    node.simulation.set_processes(0, processes)
    node.simulation.load(0, 0.9)
    time.sleep(2)  # NVML's figures are of the second before
    before, counted_before = _accounted_anew(node, uuid)
    time.sleep(WATCHED_S)
    after, counted = _accounted_anew(node, uuid)
    gained = {job: after[job] - before[job] for job in (busy, calm)}
    assert sum(gained.values()) == counted - counted_before
    share = gained[busy] / sum(gained.values())
    print(f"a holder of 90 % of the use is billed {share:.1%} of the energy")
    assert share > (0.9 + 0.5) / 2
    shards.scancel(busy, calm)
    wait_until(lambda: len(read_records(node.files.state_dir)) == 2, 5, "both jobs have their record", note=False)
    for job in (busy, calm):
        gpu = node.agent.get(f"/v1/jobs/{job}")["gpus"][0]
        assert "use" in gpu["basis"]


def test_holders_whose_use_nobody_knows_are_billed_alike(shards: Lab) -> None:
    node = shards.node(1)
    first, second = _begin(shards), _begin(shards)
    for job in (first, second):
        _process_of(shards, job)
    uuid = node.simulation.gpu(0).uuid
    node.simulation.load(0, 0.9)
    start = time.monotonic()
    before, _ = _accounted_anew(node, uuid)
    after, _ = _accounted_anew(node, uuid)
    took_s = time.monotonic() - start
    gained = [after[job] - before[job] for job in (first, second)]
    assert gained[0] > 0
    assert abs(gained[0] - gained[1]) <= 10 + took_s / TICK_S  # a millijoule each tick
    assert "even" in node.agent.get(f"/v1/jobs/{first}")["gpus"][0]["basis"]


def test_seven_jobs_on_mig_instances_sum_to_their_gpu(one_agent: Lab) -> None:
    """The GPU's time stands still at the hooks: what they are billed is what its counter gained, to the millijoule."""
    node = one_agent.node(1)
    node.simulation.set_mig(0, ["1g.10gb"] * 7)
    try:
        start_afresh(node)
        gpu = node.simulation.gpu(0)
        assert len(gpu.mig) == 7
        node.simulation.set_clock("manual")
        for job, instance in enumerate(gpu.mig, start=1):
            _post(node, "prolog", job, instance.uuid)
        assert len(node.agent.get("/v1/status")["gpus"][0]["holders"]) == 7
        counted_before = node.simulation.gpu(0).counter_mj
        node.simulation.load(0, 0.8)
        start = time.monotonic()
        node.simulation.set_clock("real")
        time.sleep(2)
        node.simulation.set_clock("manual")
        took_s = time.monotonic() - start
        gained = node.simulation.gpu(0).counter_mj - counted_before
        for job, instance in enumerate(gpu.mig, start=1):
            _post(node, "epilog", job, instance.uuid)
        books = read_books(node.files.state_dir)
        billed = [sum(books.of_job(job).values()) for job in range(1, 8)]
        assert gained > 500_000
        assert sum(billed) == gained
        assert max(billed) - min(billed) <= 2 * took_s / TICK_S  # one millijoule for each tick
        assert not any(books.unattributed.values())
        assert "slices" in node.agent.get("/v1/jobs/1")["gpus"][0]["basis"]  # and "sole": it was there first
    finally:
        node.simulation.set_clock("real")
        node.simulation.set_mig(0, [])
        start_afresh(node)


def _post(node: Node, event: str, job: int, visible: str) -> None:
    environment = hook_environment(job, "0") + f"CUDA_VISIBLE_DEVICES={visible}\0".encode()
    status, body = node.agent.post_event(event, environment)
    assert status == 200, body
    assert b'"applied"' in body, body
