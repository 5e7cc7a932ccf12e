"""How soon what went wrong is right again."""

import random
import signal
import time

from tests.bench.node import GPUS, BenchNode, Job, progress
from tests.bench.results import Figure, Row
from wattkeeper.units import Milliwatts

DRIFT_BOUND_S = 2.0
KILLS = 10
KILL_BOUND_S = 2.0
LONGEST_S = 10.0
OTHERS_LIMIT_MW = Milliwatts(650_000)


def measure_drift(node: BenchNode, jobs: list[Job], chance: random.Random) -> Row:
    """Another tool writes each GPU once, at any moment between two ticks."""
    progress(f"{node.profile}: {len(jobs)} foreign writes")
    times = []
    for job in jobs:
        time.sleep(chance.random())
        node.simulation.set_limit(job.minors[0], OTHERS_LIMIT_MW)
        times.append(_until_right(node, "prolog", job, time.monotonic()))
    figures = (Figure("slowest", max(times), "s", DRIFT_BOUND_S), Figure("mean", sum(times) / len(times), "s"))
    return Row(
        "drift noticed and repaired (1 tick + 1 s)", node.profile, figures, note=f"{len(jobs)} writes, interval 1 s"
    )


def measure_kills(node: BenchNode, chance: random.Random) -> Row:
    """SIGKILL at random moments of a hook; after every other one another tool writes before the restart."""
    progress(f"{node.profile}: {KILLS} kills")
    times = []
    job = node.job()
    for number in range(KILLS):
        event = "epilog" if number % 2 else "prolog"
        hook = node.hook(event, job)
        time.sleep(chance.uniform(0, 0.2))
        node.agent.daemon.signal(signal.SIGKILL)
        node.agent.kill()
        hook.wait(30)
        if event == "prolog":
            node.simulation.set_limit(chance.randrange(GPUS), OTHERS_LIMIT_MW)
        start = time.monotonic()
        node.agent.start(wait=False)
        times.append(_until_right(node, event, job, start, ready=True))
        if event == "epilog":
            job = node.job()
    figures = (Figure("slowest", max(times), "s", KILL_BOUND_S), Figure("mean", sum(times) / len(times), "s"))
    note = f"{KILLS} kills at random moments of a hook; `make chaos` kills at every named place"
    return Row("SIGKILL → every GPU right again, from restart", node.profile, figures, note=note)


def _until_right(node: BenchNode, event: str, job: Job, start: float, *, ready: bool = False) -> float:
    """Seconds since ``start`` when the job's limits were right (and the agent ready); LONGEST_S where never."""
    while time.monotonic() - start < LONGEST_S:
        if (not ready or node.agent.notify.seen("READY", "1")) and node.right(event, job):
            return time.monotonic() - start
        node.agent.daemon.check()
        time.sleep(0.005)
    return LONGEST_S
