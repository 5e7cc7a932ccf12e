"""How long 10,000 rules take to load, and to decide what a job gets on one GPU."""

import time
from collections.abc import Iterable
from pathlib import Path

import yaml

from tests.bench.node import progress
from tests.bench.results import Figure, Row, median_ms, percentile
from wattkeeper.config.policy import load_policies
from wattkeeper.core.policy import Policy
from wattkeeper.core.resolve import resolve
from wattkeeper.model import UNKNOWN, Conditions, GpuContext, GpuInfo, GpuUuid, JobFacts, JobKey
from wattkeeper.units import Milliwatts

RULES = 10_000
LOADS = 3
LOAD_BOUND_S = 1.0
RESOLVE_BOUND_MS = 5.0
PEAK = '{hours: "12:00-18:00"}'
LIMIT = Milliwatts(700_000)
GPU = GpuContext(
    GpuInfo(GpuUuid("GPU-1"), 0, 0, "NVIDIA H100 80GB HBM3", LIMIT, Milliwatts(200_000), LIMIT), baseline_mw=LIMIT
)

KINDS = {
    "names": "{{account: acct{n:05}}}",
    "globs": '{{account: "*-proj{n:05}-*"}}',
    "schedules": "{{user: user{n:05}, schedule: {peak}}}",
    "QOS": "{{qos: qos{n:05}, partition: [gpu, long]}}",
}
"""A rule's ``when``, by what it looks at."""

MIXED = (*("names", "globs", "schedules") * 3, "QOS")


def policy_of(kinds: Iterable[str]) -> str:
    """A policy's text of ``RULES`` rules, of each kind in turn, and a last one for everyone."""
    whens = [KINDS[kind] for kind in kinds]
    lines = ["version: 1", "caps:"]
    for n in range(RULES - 1):
        when = whens[n % len(whens)].format(n=n, peak=PEAK)
        requests = ", requests: {min: 50%, max: baseline}" if n % 3 == 0 else ""
        lines.append(f"  - {{name: r{n:05}, when: {when}, cap: {250 + n % 8 * 50}W{requests}}}")
    lines.append("  - {name: everyone, cap: baseline, requests: {min: min, max: baseline}}\n")
    return "\n".join(lines)


def job_of(n: int, *, known: bool) -> JobFacts:
    """A job of a user that no other job has, whose QOS is not ``known`` yet; some fit the last rule alone."""
    return JobFacts(
        JobKey("c", n, "r0"),
        uid=1000 + n,
        user=f"user{n * 97 % (2 * RULES):05}",
        account=f"lab-proj{n * 89 % (2 * RULES):05}-x" if n % 2 else f"acct{n * 89 % (2 * RULES):05}",
        partition="gpu",
        qos=f"qos{n * 83 % (2 * RULES):05}" if known else UNKNOWN,
        job_name=f"job{n}",
        comment="power=300W",
        num_nodes=1,
        gpus=4,
        node="n1",
    )


def resolve_times_s(policy: Policy, *, known: bool, jobs: int = 100) -> list[float]:
    """For each of some jobs, each a minute later than the one before, the first at noon."""
    took = []
    for n in range(jobs):
        job, conditions = job_of(n, known=known), Conditions(1_814_184_000.0 + 60 * n, "n1")
        start = time.perf_counter()
        resolve(job, GPU, policy, conditions)
        took.append(time.perf_counter() - start)
    return took


def measure(root: Path) -> list[Row]:
    """A row for a policy of all kinds, and one for each kind alone."""
    return [_row(root, "all kinds", MIXED), *(_row(root, f"{kind} alone", (kind,)) for kind in KINDS)]


def _row(root: Path, what: str, kinds: tuple[str, ...]) -> Row:
    progress(f"{RULES:,} rules: {what}")
    file = root / "rules.yaml"
    file.write_text(policy_of(kinds))
    loads, peers = [], []
    for _ in range(LOADS):
        start = time.perf_counter()
        policy, _ = load_policies(file)
        loads.append(time.perf_counter() - start)
        start = time.perf_counter()
        yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
        peers.append(time.perf_counter() - start)
    known, unknown = (resolve_times_s(policy, known=known) for known in (True, False))
    bound = None if kinds == ("QOS",) else RESOLVE_BOUND_MS  # without: each of the rules could match, and is weighed
    return Row(
        f"a policy of {RULES:,} rules: {what}",
        "-",
        (
            Figure("load, best of 3", min(loads), "s", LOAD_BOUND_S),
            Figure("resolve, median", median_ms(known), "ms", RESOLVE_BOUND_MS),
            Figure("resolve, p99", percentile(known, 99) * 1000, "ms", RESOLVE_BOUND_MS),
            Figure("resolve, QOS not known, median", median_ms(unknown), "ms", bound),
        ),
        peer=f"PyYAML (C) alone reads the file in {min(peers):.2f} s",
        note=f"{file.stat().st_size / 2**20:.2f} MiB, each job's first decision on one GPU",
    )
