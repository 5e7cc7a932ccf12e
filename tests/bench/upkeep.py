"""What the agent costs while nothing happens, and what a scrape costs."""

import time
from collections.abc import Sequence
from statistics import median

from tests.bench.node import GPUS, BenchNode, Job, progress
from tests.bench.peers.beside import BareReader, NodeExporter
from tests.bench.results import Figure, Row
from tests.bench.usage import Usage, scrape

WINDOW_S = 30.0
SCRAPES_AT_S = (7.5, 22.5)
CPU_BOUND_PERCENT = {"driver": 1.0, "none": 0.3}
RSS_BOUND_MIB = 55.0
ACTUATOR_BOUND_MIB = 20.0
SCRAPES = 200
PEER_SCRAPES = 50
SCRAPE_BOUND_MS = 5.0
TICKS_S, INTERVAL_S = 10.0, 1.0
TICK_WINDOWS = 3
"""Of so many windows of ``TICKS_S`` the median one counts: what a neighbour on the host does is not the agent's."""

TICK_BOUND_MS = 2.0
ABSENT = "prometheus-node-exporter is not installed"


def fill(node: BenchNode, finished: int) -> None:
    """So many finished jobs of one GPU each, within their time of grace."""
    for number in range(finished):
        job = node.job([number % GPUS])
        node.post_s("prolog", job)
        node.post_s("epilog", job)


def occupy(node: BenchNode) -> list[Job]:
    """A running job on each GPU."""
    jobs = [node.job([minor]) for minor in range(GPUS)]
    for job in jobs:
        node.post_s("prolog", job)
    return jobs


def measure_quiet(node: BenchNode, others: Sequence[BenchNode], exporter: NodeExporter) -> Row:
    """The quiet window, the peer in it too; other agents are stopped for its length: a node has one."""
    progress(f"{node.profile}: quiet for {WINDOW_S:g} s, CPU and memory")
    for other in others:
        other.agent.pause()
    try:
        time.sleep(2)
        usages = [Usage(node.agent.pid)] + ([exporter.usage] if exporter.usage else [])
        before, start = [usage.cpu_s() for usage in usages], time.monotonic()
        for moment in SCRAPES_AT_S:
            time.sleep(max(0.0, start + moment - time.monotonic()))
            for url in [node.agent.metrics_url] + ([exporter.url] if exporter.usage else []):
                scrape(url)
        time.sleep(max(0.0, start + WINDOW_S - time.monotonic()))
        took = time.monotonic() - start
        percent = [100 * (usage.cpu_s() - old) / took for usage, old in zip(usages, before, strict=True)]
        memory = [usage.rss_mib() for usage in usages]
        actuator_mib = Usage(node.agent.actuator.pid).rss_mib()
    finally:
        for other in others:
            other.agent.resume()
    return Row(
        f"agent, {GPUS} GPUs, 16 jobs, 1 Hz, scraped every 15 s",
        node.profile,
        (
            Figure("of one core", percent[0], "%", CPU_BOUND_PERCENT[node.profile]),
            Figure("RSS", memory[0], "MiB", RSS_BOUND_MIB),
            Figure("RSS of its actuator", actuator_mib, "MiB", ACTUATOR_BOUND_MIB),
        ),
        f"node-exporter: {percent[-1]:.2f} %, {memory[-1]:.0f} MiB" if exporter.usage else ABSENT,
        f"{WINDOW_S:g} s; {GPUS} jobs run, {16 - GPUS} have ended and still show",
    )


def measure_ticks(node: BenchNode) -> Row:
    """CPU time of a tick, when nobody scrapes; with a driver that takes its time also what the bare calls cost."""
    progress(f"{node.profile}: {TICK_WINDOWS} times {TICKS_S:g} s of ticks")
    reader = BareReader(node.files.root, node.simulation)
    try:
        time.sleep(2)
        usages = [Usage(node.agent.pid), reader.usage]
        windows = [_per_second_ms(usages, TICKS_S) for _ in range(TICK_WINDOWS)]
        memory = Usage(node.agent.pid).rss_mib()
    finally:
        reader.close()
    what, own_ms = "CPU", [agent_ms for agent_ms, _ in windows]
    if node.profile != "none":  # a client that waits for the driver is charged for being put to sleep and woken
        what, own_ms = "CPU beyond the driver's calls", [agent_ms - bare_ms for agent_ms, bare_ms in windows]
    each, bare_ms = ", ".join(f"{ms:.2f}" for ms in own_ms), median(bare_ms for _, bare_ms in windows)
    return Row(
        f"tick, {GPUS} GPUs, 64 jobs",
        node.profile,
        (Figure(what, median(own_ms), "ms", TICK_BOUND_MS), Figure("RSS", memory, "MiB", RSS_BOUND_MIB)),
        f"the same calls by a client that does nothing else: {bare_ms:.1f} ms",
        f"median of {each} ms, each the mean of {TICKS_S / INTERVAL_S:.0f} ticks, all that the agent does included;"
        f" {GPUS} jobs run, {64 - GPUS} have ended and still show",
    )


def _per_second_ms(usages: Sequence[Usage], seconds: float) -> list[float]:
    before, start = [usage.cpu_s() for usage in usages], time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - start
    return [1000 * INTERVAL_S * (usage.cpu_s() - old) / took for usage, old in zip(usages, before, strict=True)]


def measure_scrapes(node: BenchNode, exporter: NodeExporter) -> Row:
    """CPU time of a scrape, ticks that fall between included."""
    progress(f"{node.profile}: {SCRAPES} scrapes")
    size = len(scrape(node.agent.metrics_url))
    peer = f"node-exporter: {_per_scrape_ms(exporter.usage, exporter.url, PEER_SCRAPES):.1f} ms" \
        if exporter.usage else ABSENT  # fmt: skip
    return Row(
        f"scrape, {GPUS} GPUs, 64 jobs",
        node.profile,
        (
            Figure(
                "CPU",
                _per_scrape_ms(Usage(node.agent.pid), node.agent.metrics_url, SCRAPES),
                "ms",
                SCRAPE_BOUND_MS,
            ),
        ),
        peer,
        f"mean of {SCRAPES}; {size / 1024:.0f} KiB a page; {GPUS} jobs run, {64 - GPUS} have ended and still show",
    )


def _per_scrape_ms(usage: Usage, url: str, count: int) -> float:
    before = usage.cpu_s()
    for _ in range(count):
        scrape(url)
    return 1000 * (usage.cpu_s() - before) / count
