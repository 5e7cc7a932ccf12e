"""The metrics, as a view of the snapshot. Names and labels are in ``FAMILIES`` and nowhere else.

``gpu`` is the minor number. What is absent is left out, never 0; a reading that is too old is absent. The energy of a
job or an account begins at 0 for each client, so that ``increase()`` misses nothing (docs/decisions/zero-first.md).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from wattkeeper.exporters.scrapers import FILE_HOLD_S, Scrapers
from wattkeeper.model import Account, GpuUuid, JobText, Outcome
from wattkeeper.snapshot import (
    APPLY_BUCKETS_S,
    AccountView,
    Counters,
    GpuView,
    Histogram,
    JobView,
    Snapshot,
    fresh_s,
)
from wattkeeper.text import printable
from wattkeeper.units import Millijoules, Milliwatts, joules, watts

JobLabels = Literal["full", "id", "none"]

PREFIX = "wattkeeper_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TEXTFILE = "textfile"
"""The client whose page is a file."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as it is documented. ``name`` is without the prefix; a counter's ends in ``_total``."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


_GPU = ("gpu", "uuid")
_JOB_GPU = ("slurm_job_id", "gpu")

FAMILIES = (
    Family("build_info", "gauge", "The agent's version.", ("version",)),
    Family("agent_info", "gauge", "What the agent does with its decisions: enforce or observe.", ("mode",)),
    Family("node_info", "gauge", "Slurm's names of the node and its cluster.", ("node", "cluster")),
    Family("gpu_info", "gauge", "A GPU of the node.", ("gpu", "uuid", "model", "driver_version")),
    Family("gpu_power_watts", "gauge", "Power the GPU draws.", _GPU),
    Family("gpu_energy_joules_total", "counter", "The GPU's energy counter, since driver load.", _GPU),
    Family("gpu_idle_energy_joules_total", "counter", "Energy of the GPU while no job held it.", _GPU),
    Family(
        "gpu_unattributed_energy_joules_total",
        "counter",
        "Energy of the GPU over intervals of which nobody can say whose it was.",
        _GPU,
    ),
    Family("gpu_temperature_celsius", "gauge", "Temperature of the GPU.", _GPU),
    Family("gpu_utilization_ratio", "gauge", "Share of time in which the GPU had work.", _GPU),
    Family("gpu_power_capped_seconds_total", "counter", "Time in which the power limit held the GPU back.", _GPU),
    Family("gpu_power_limit_watts", "gauge", "The power limit that was requested of the GPU.", _GPU),
    Family(
        "gpu_power_limit_enforced_watts",
        "gauge",
        "The power limit that holds: lower than the requested one where the BMC says so.",
        _GPU,
    ),
    Family("gpu_power_limit_target_watts", "gauge", "The power limit that the agent wants.", _GPU),
    Family("gpu_power_limit_baseline_watts", "gauge", "The power limit to put back.", _GPU),
    Family("gpu_power_limit_default_watts", "gauge", "The GPU's default power limit.", _GPU),
    Family("gpu_power_limit_min_watts", "gauge", "The lowest power limit the GPU takes.", _GPU),
    Family("gpu_power_limit_max_watts", "gauge", "The highest power limit the GPU takes.", _GPU),
    Family("gpu_drift_yielded", "gauge", "1 where the agent has left the GPU to another writer.", _GPU),
    Family(
        "gpu_sharing_conflicts",
        "gauge",
        "Holders of the GPU that would have another power limit, were they alone on it.",
        _GPU,
    ),
    Family("gpu_held", "gauge", "1 where an admin has taken the GPU out of the agent's hands.", _GPU),
    Family(
        "job_info",
        "gauge",
        "A job on this node, here or just finished.",
        ("slurm_job_id", "user", "account", "partition", "qos"),
    ),
    Family("job_gpu_energy_joules_total", "counter", "Energy charged to the job on this GPU.", _JOB_GPU),
    Family(
        "job_gpu_power_cap_watts",
        "gauge",
        "The limit that policy chose for the running job on this GPU, set or not.",
        _JOB_GPU,
    ),
    Family(
        "account_energy_joules_total",
        "counter",
        "Energy charged to the account's jobs, over restarts; leaves a day after its last job.",
        ("account", "partition", "domain"),
    ),
    Family(
        "energy_gaps_total",
        "counter",
        "Intervals of which nobody can say whose their energy was, or how much: they are nobody's.",
        ("gpu", "cause"),
    ),
    Family("cap_writes_total", "counter", "Power limits written.", ("cause",)),
    Family("cap_write_errors_total", "counter", "Power limits that could not be written.", ("gpu", "error")),
    Family(
        "cap_apply_seconds",
        "histogram",
        "From an event's arrival until the limits are set and read back.",
        ("event",),
    ),
    Family("hook_events_total", "counter", "Events that Slurm's hooks reported.", ("event", "outcome")),
    Family("requests_total", "counter", "What became of users' requests.", ("outcome",)),
    Family(
        "drift_total",
        "counter",
        "Limits found changed by something else, and what the agent did.",
        ("gpu", "cause", "outcome"),
    ),
    Family(
        "slurm_lookups_total",
        "counter",
        "Questions to Slurm about a job, and what came of them.",
        ("source", "outcome"),
    ),
    Family("policy_last_reload_successful", "gauge", "1 where the last reading of the policy was good."),
    Family(
        "policy_last_reload_success_timestamp_seconds", "gauge", "When the policy in force was read, in Unix seconds."
    ),
    Family("policy_info", "gauge", "The policy in force.", ("hash",)),
    Family("source_up", "gauge", "1 where the source answered when it was last used.", ("source",)),
    Family("source_read_seconds", "gauge", "How long the last reading of the source took.", ("source",)),
)

_BUCKET_LABELS = tuple(str(bound) for bound in APPLY_BUCKETS_S)


class Exporter:
    """Renders the present snapshot as Prometheus' text. May be used from any thread."""

    def __init__(
        self, get_snapshot: Callable[[], Snapshot], job_labels: JobLabels | None, mono: Callable[[], float]
    ) -> None:
        """``mono``: the clock of ``GpuReading.at_mono``, in seconds.

        ``job_labels``: ``full``; ``id`` leaves users and accounts empty; ``none`` leaves jobs out altogether; None is
        ``full`` for clients that have shown who they are, and ``id`` for all others.
        """
        self._get_snapshot = get_snapshot
        self._job_labels = job_labels
        self._mono = mono
        self._scrapers = Scrapers()

    def render(self, client: str, authenticated: bool = False) -> tuple[bytes, str]:
        """The metrics and their content type. ``client``: who asks, the same text each time.

        ``authenticated``: the listener lets in only those who have shown who they are.
        """
        snapshot = self._get_snapshot()
        if client == TEXTFILE:
            seen_mono = snapshot.at_mono - FILE_HOLD_S
        else:
            seen_mono = self._scrapers.visit(client, snapshot.at_mono)
        labels: JobLabels = self._job_labels or ("full" if authenticated else "id")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_SnapshotCollector(snapshot, labels, self._mono(), seen_mono))
        return generate_latest(registry), CONTENT_TYPE


class _SnapshotCollector(Collector):
    """``seen_mono``: label sets born later are new to whoever asks."""

    def __init__(self, snapshot: Snapshot, job_labels: JobLabels, now_mono: float, seen_mono: float) -> None:
        self._snapshot = snapshot
        self._job_labels = job_labels
        self._now_mono = now_mono
        self._seen_mono = seen_mono

    def collect(self) -> Iterator[Metric]:
        """Every family, in the order of ``FAMILIES``, also those without a sample."""
        page, snapshot = _Page(), self._snapshot
        _add_node(page, snapshot)
        oldest_mono = self._now_mono - fresh_s(snapshot.interval_s)
        for gpu in snapshot.gpus:
            _add_gpu(page, gpu, oldest_mono)
        if self._job_labels != "none":
            _add_jobs(page, snapshot, self._seen_mono, names=self._job_labels == "full")
        _add_accounts(page, snapshot.accounts, self._seen_mono)
        _add_counters(page, snapshot.counters)
        yield from page.metrics()


class _Page:
    """The families of one scrape while they are filled."""

    def __init__(self) -> None:
        self._metrics = {
            family.name: (Metric(PREFIX + family.name.removesuffix("_total"), family.help, family.kind), family.labels)
            for family in FAMILIES
        }

    def add(self, name: str, values: Sequence[str], number: float) -> None:
        """A sample of the family ``name``; ``values`` are those of its labels, in their order."""
        metric, labels = self._metrics[name]
        metric.add_sample(PREFIX + name, dict(zip(labels, values, strict=True)), number)

    def add_histogram(self, name: str, values: Sequence[str], histogram: Histogram) -> None:
        """The samples of a histogram: its cumulative buckets, all, and their sum."""
        metric, names = self._metrics[name]
        labels = dict(zip(names, values, strict=True))
        bounds = zip((*_BUCKET_LABELS, "+Inf"), (*histogram.buckets, histogram.count), strict=True)
        for bound, count in bounds:
            metric.add_sample(f"{PREFIX}{name}_bucket", {**labels, "le": bound}, count)
        metric.add_sample(f"{PREFIX}{name}_count", labels, histogram.count)
        metric.add_sample(f"{PREFIX}{name}_sum", labels, histogram.sum_s)

    def metrics(self) -> Iterable[Metric]:
        """The families as the library takes them."""
        return (metric for metric, _ in self._metrics.values())


def _add_node(page: _Page, snapshot: Snapshot) -> None:
    page.add("build_info", (snapshot.version,), 1)
    page.add("agent_info", (snapshot.mode,), 1)
    page.add("node_info", (_label(snapshot.node), _label(snapshot.cluster)), 1)
    policy = snapshot.policy
    page.add("policy_last_reload_successful", (), policy.reload_ok)
    if policy.reloaded_at:
        page.add("policy_last_reload_success_timestamp_seconds", (), policy.reloaded_at)
    if policy.digest:
        page.add("policy_info", (policy.digest,), 1)
    for source, state in snapshot.sources.items():
        page.add("source_up", (source,), state.up)
        if state.read_s is not None:
            page.add("source_read_seconds", (source,), state.read_s)


def _add_gpu(page: _Page, gpu: GpuView, oldest_mono: float) -> None:
    info = gpu.info
    labels = (str(info.minor), info.uuid)
    page.add("gpu_info", (*labels, info.model, info.driver_version), 1)
    if gpu.idle_mj is not None:
        page.add("gpu_idle_energy_joules_total", labels, joules(gpu.idle_mj))
    if gpu.unattributed_mj is not None:
        page.add("gpu_unattributed_energy_joules_total", labels, joules(gpu.unattributed_mj))
    page.add("gpu_drift_yielded", labels, gpu.yielded)
    page.add("gpu_held", labels, gpu.hold is not None)
    if gpu.target is not None:
        page.add("gpu_sharing_conflicts", labels, gpu.target.conflicts)

    def add_watts(name: str, power: Milliwatts | None) -> None:
        if power is not None:
            page.add(name, labels, watts(power))

    add_watts("gpu_power_limit_target_watts", gpu.target.limit_mw if gpu.target else None)
    add_watts("gpu_power_limit_baseline_watts", gpu.baseline_mw)
    add_watts("gpu_power_limit_default_watts", info.default_mw)
    add_watts("gpu_power_limit_min_watts", info.min_mw)
    add_watts("gpu_power_limit_max_watts", info.max_mw)
    reading = gpu.reading
    if reading is None or reading.at_mono < oldest_mono:
        return
    add_watts("gpu_power_watts", reading.power_mw)
    add_watts("gpu_power_limit_watts", reading.requested_mw)
    add_watts("gpu_power_limit_enforced_watts", reading.enforced_mw)
    if reading.energy_mj is not None:
        page.add("gpu_energy_joules_total", labels, joules(reading.energy_mj))
    if reading.temperature_c is not None:
        page.add("gpu_temperature_celsius", labels, reading.temperature_c)
    if reading.utilization_percent is not None:
        page.add("gpu_utilization_ratio", labels, reading.utilization_percent / 100)
    if reading.capped_ns is not None:
        page.add("gpu_power_capped_seconds_total", labels, reading.capped_ns / 1e9)


def _add_jobs(page: _Page, snapshot: Snapshot, seen_mono: float, names: bool) -> None:
    minors = {gpu.info.uuid: str(gpu.info.minor) for gpu in snapshot.gpus}
    metered = {gpu.info.uuid for gpu in snapshot.gpus if _is_metered(gpu)}
    for job_id, job in _latest_runs(snapshot.jobs).items():
        facts = job.facts
        user, account = (_label(facts.user), _label(facts.account)) if names else ("", "")
        page.add("job_info", (job_id, user, account, _label(facts.partition), _label(facts.qos)), 1)
        is_new = _is_new(job.born_mono, seen_mono)
        for gpu in job.all_gpus:
            usage = job.usage.get(gpu)
            if gpu in minors and (usage is not None or (gpu in metered and job.ended_at is None)):
                energy = 0.0 if is_new else joules(job.counted_mj.get(gpu, Millijoules(0)))
                page.add("job_gpu_energy_joules_total", (job_id, minors[gpu]), energy)
        if job.ended_at is None:
            _add_caps(page, job, job_id, minors)


def _add_accounts(page: _Page, accounts: Mapping[Account, AccountView], seen_mono: float) -> None:
    """Two accounts that print alike, as only hostile names do, are one label set: their sum."""
    sums: dict[tuple[str, str], Millijoules] = {}
    for (account, partition), view in accounts.items():
        energy = view.base_mj if _is_new(view.born_mono, seen_mono) else view.energy_mj
        labels = _printable(account), _printable(partition)
        sums[labels] = Millijoules(sums.get(labels, 0) + energy)
    for labels, energy in sums.items():
        page.add("account_energy_joules_total", (*labels, "gpu"), joules(energy))


def _is_metered(gpu: GpuView) -> bool:
    """True where the energy of a job on this GPU will be known."""
    return gpu.reading is not None and (gpu.reading.energy_mj is not None or gpu.reading.power_mw is not None)


def _is_new(born_mono: float | None, seen_mono: float) -> bool:
    """True for a label set that whoever asks has not been shown yet."""
    return born_mono is not None and born_mono > seen_mono


def _add_caps(page: _Page, job: JobView, job_id: str, minors: dict[GpuUuid, str]) -> None:
    for gpu, cap in job.caps.items():
        if gpu in minors and cap.decided_mw is not None:
            page.add("job_gpu_power_cap_watts", (job_id, minors[gpu]), watts(cap.decided_mw))


def _latest_runs(jobs: Iterable[JobView]) -> dict[str, JobView]:
    """By job id the run that began last: two series must not have the same labels.

    A requeued job keeps its id, and two clusters that share the node may both have a job of one id.
    """
    latest: dict[str, JobView] = {}
    for job in jobs:
        job_id = str(job.key.job_id)
        known = latest.get(job_id)
        if known is None or job.started_at >= known.started_at:
            latest[job_id] = job
    return latest


def _add_counters(page: _Page, counters: Counters) -> None:
    for cause, count in counters.cap_writes.items():
        page.add("cap_writes_total", (cause,), count)
    for (minor, error), count in counters.cap_write_errors.items():
        page.add("cap_write_errors_total", (str(minor), error), count)
    for event, histogram in counters.apply_seconds.items():
        page.add_histogram("cap_apply_seconds", (event,), histogram)
    events = {("prolog", "applied"): 0, ("epilog", "applied"): 0} | dict(counters.hook_events)
    for event_outcome, count in events.items():
        page.add("hook_events_total", event_outcome, count)
    for outcome, count in (dict.fromkeys((o.value for o in Outcome), 0) | dict(counters.requests)).items():
        page.add("requests_total", (outcome,), count)
    for (minor, cause, outcome), count in counters.drift.items():
        page.add("drift_total", (str(minor), cause, outcome), count)
    for (minor, cause), count in counters.energy_gaps.items():
        page.add("energy_gaps_total", (str(minor), cause), count)
    for (source, outcome), count in counters.slurm_lookups.items():
        page.add("slurm_lookups_total", (source, outcome), count)


def _label(text: JobText) -> str:
    """A text from outside as a label's value: empty where it is absent or not yet known."""
    return _printable(text) if isinstance(text, str) else ""


@lru_cache(maxsize=4096)
def _printable(text: str) -> str:
    return printable(text)
