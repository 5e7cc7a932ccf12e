"""Both experiments: a thousand short jobs, and jobs through many deaths of the agent. Each gives what is wrong."""

import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import mkdtemp

from tests.bench.node import BenchNode, Job
from tests.chaos.books import Books, read_books, read_records
from tests.chaos.kills import Deaths, Killer
from tests.chaos.workload import Run, Workload
from tests.lab.processes import Keeper
from tests.lab.waiting import wait_until

INTERVAL_S = 0.2
MOST_UNSEEN = 1 / 20
"""Of the short jobs: so many at most may start or end while a busy machine keeps the agent from reading a GPU."""


@dataclass(frozen=True)
class Outcome:
    """``wrong``: each thing that is not as it must be, in words. ``counted_mj``: what all counters gained."""

    wrong: tuple[str, ...]
    jobs: int
    counted_mj: int
    unattributed_mj: int
    took_s: float
    deaths: Deaths

    def __str__(self) -> str:
        text = f"{self.jobs} jobs, {self.counted_mj / 1e6:.3f} kJ, {self.unattributed_mj / 1e6:.3f} kJ of it nobody's"
        return f"{text}; {self.deaths}; {self.took_s:.0f} s"


@contextmanager
def _node() -> Iterator[BenchNode]:
    """A node whose GPUs' time stands still, with an agent that looks at them five times a second."""
    root = Path(mkdtemp(prefix="wk-chaos-", dir="/tmp")).resolve()
    root.chmod(0o755)  # where we are root, the agent is somebody else
    keeper = Keeper(root)
    try:
        node = BenchNode(root, "none", interval=f"{INTERVAL_S}s")
        node.simulation.set_clock("manual")
        try:
            yield node
        finally:
            node.close()
    finally:
        keeper.finish()


def short_jobs(seed: int, count: int) -> Outcome:
    """So many jobs with the agent there all the while: every one is billed what its GPUs' counters say, exactly.

    But for those at whose start or end a GPU did not answer in time: what is nobody's then is told in the log.
    """
    start = time.monotonic()
    with _node() as node:
        workload = Workload(node, Random(seed), count)  # noqa: S311

        def tell(event: str, job: Job) -> bool:
            before = _unread(node)
            node.tell(event, job)
            return before == _unread(node) and len(set(before)) == 1

        while not workload.over:
            workload.step(tell)
        outcome = _judge(node, workload, Deaths(), start, nobodys=not all(run.answered for run in workload.done))
        unseen = sum(not run.answered for run in workload.done)
        if unseen > MOST_UNSEEN * count:
            return replace(outcome, wrong=(*outcome.wrong, f"{unseen} jobs with GPUs that could not be read"))
        return outcome


def _unread(node: BenchNode) -> tuple[int, int]:
    """How often the agent could not read a GPU until now, and how often it could again."""
    text = node.agent.log_text()
    return text.count(" not read: "), text.count(" reads again")


def killed(seed: int, jobs: int, kills: int) -> Outcome:
    """Jobs through so many deaths of the agent or its actuator: no joule twice or lost, and what was seen is exact."""
    start = time.monotonic()
    with _node() as node:
        node.agent.kill()
        killer = Killer(node, Random(seed), jobs, kills)  # noqa: S311
        killer.run()
        return _judge(node, killer.workload, killer.deaths, start, nobodys=True, late=killer.hooks.late)


def _judge(
    node: BenchNode,
    workload: Workload,
    deaths: Deaths,
    start: float,
    *,
    nobodys: bool,
    late: Collection[int] = (),
) -> Outcome:
    """Ends the agent and looks at its ledger's file. ``nobodys``: whether energy may be unattributed.

    ``late``: jobs whose end the agent heard of late. Time passes at once here, so that they may have cost anything.
    """
    counters = {gpu.uuid: gpu.counter_mj for gpu in node.simulation.show().gpus}
    _await_reading(node, counters)
    assert node.agent.stop() == 0, node.agent.log_text()[-2000:]
    books = read_books(node.files.state_dir)
    wrong = [f"{path.name}: the ledger was set aside" for path in node.files.state_dir.glob("*.corrupt-*")]
    wrong += _of_gpus(node, books, counters)
    uuids = {gpu.minor: gpu.uuid for gpu in node.simulation.show().gpus}
    for run in workload.done:
        wrong += _of_job(run, books, uuids, late=run.job.job_id in late)
    wrong += _of_records(node, books)
    wrong += _of_accounts(books)
    unattributed = sum(books.unattributed.values())
    if unattributed and not nobodys:
        wrong.append(f"{unattributed} mJ are nobody's, though the agent was there all the while")
    gained = sum(counters.values()) - sum(node.energy_at_start_mj.values())
    return Outcome(tuple(wrong), len(workload.done), gained, unattributed, time.monotonic() - start, deaths)


def _await_reading(node: BenchNode, counters_mj: Mapping[str, int]) -> None:
    """Until the agent has read the counters as they stand. No GPU's time passes any more."""

    def has_read() -> bool:
        gpus = node.agent.get("/v1/status")["gpus"]
        return {gpu["uuid"]: round(gpu["energy_j"] * 1000) for gpu in gpus} == counters_mj

    wait_until(has_read, 5, "the counters are read", note=False)


def _of_gpus(node: BenchNode, books: Books, counters: Mapping[str, int]) -> Iterator[str]:
    for uuid, counter in counters.items():
        gained, booked = counter - node.energy_at_start_mj[uuid], books.of_gpu(uuid)
        if gained != booked:
            yield f"{uuid}: its counter gained {gained} mJ, the ledger has {booked} mJ"


def _of_job(run: Run, books: Books, uuids: dict[int, str], *, late: bool) -> Iterator[str]:
    booked = books.of_job(run.job.job_id)
    for minor in run.job.minors:
        drawn, billed = run.energy_mj(minor), booked.pop(uuids[minor], 0)
        if billed != drawn if run.answered else not 0 <= billed <= (billed if late else drawn):
            seen = "seen whole" if run.answered else "not seen whole"
            yield f"job {run.job.job_id}, {seen}, on GPU {minor}: drew {drawn} mJ, billed {billed} mJ"
    if any(booked.values()):
        yield f"job {run.job.job_id}: billed {booked} mJ of GPUs that it never held"


def _of_records(node: BenchNode, books: Books) -> Iterator[str]:
    records = read_records(node.files.state_dir)
    seen = {record.job_id: record.energy_mj for record in records}
    for job_id, times in Counter(record.job_id for record in records).items():
        if times > 1:
            yield f"job {job_id} has {times} records"
    for job_id in {job_id for job_id, _ in books.jobs}:
        billed = sum(books.of_job(job_id).values())
        if job_id not in seen:
            yield f"job {job_id}: the ledger has {billed} mJ, and there is no record"
        elif (seen[job_id] or 0) != billed:
            yield f"job {job_id}: the ledger has {billed} mJ, its record {seen[job_id]} mJ"


def _of_accounts(books: Books) -> Iterator[str]:
    """Every job has an account here, so accounts and jobs are the same energy."""
    jobs = sum(books.jobs.values())
    for name, sums in (("totals of accounts", books.accounts), ("sums of days", books.days)):
        if sum(sums.values()) != jobs:
            yield f"jobs used {jobs} mJ, the {name} say {sum(sums.values())} mJ: {sums}"
        if "" in {account for account, _ in sums}:
            yield f"the {name} have energy without an account: {sums}"


def seed_of_environment() -> int:
    """WATTKEEPER_SEED, to see again what was seen; else one of its own."""
    return int(os.environ.get("WATTKEEPER_SEED") or int.from_bytes(os.urandom(4)))
