"""Energy of a whole cluster, asked of the Prometheus that scrapes its agents."""

import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from wattkeeper.cli.output import NAMELESS
from wattkeeper.cli.period import begins_at
from wattkeeper.errors import WattkeeperError
from wattkeeper.ledger.report import Amount, Part, Question, Report, grouped
from wattkeeper.system.clock import SystemClock
from wattkeeper.text import printable
from wattkeeper.units import Millijoules

ACCOUNT_METRIC = "wattkeeper_account_energy_joules_total"
IDLE_METRIC = "wattkeeper_gpu_idle_energy_joules_total"
UNATTRIBUTED_METRIC = "wattkeeper_gpu_unattributed_energy_joules_total"

_KEPT_APART = {
    ACCOUNT_METRIC: ("cluster", "account", "partition"),
    IDLE_METRIC: ("cluster",),
    UNATTRIBUTED_METRIC: ("cluster",),
}
"""What is asked for, and by which labels. ``cluster`` is the target's: see deploy/prometheus/scrape.yml."""

SHORTEST_S = 3600
"""A question that is too much for Prometheus is asked in halves, down to this."""

_MOST_BYTES = 64 * 2**20

Series = list[tuple[Mapping[str, str], float]]


class PrometheusError(WattkeeperError):
    """Prometheus did not answer, or not with what was asked for."""


class TooMuchError(PrometheusError):
    """The question takes more samples than this Prometheus may load for one."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """The Prometheus at ``url`` (http or https, with ``user:password@`` where it wants one).

    ``timeout_s`` bounds each question as a whole.
    """

    url: str
    timeout_s: float = 30.0

    @property
    def name(self) -> str:
        """Its address, safe to print."""
        parts = urllib.parse.urlsplit(self.url)
        return printable(urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))

    def query(self, text: str, at: float) -> Series:
        """An instant query: labels and value of each series. Raises PrometheusError."""
        answer = self._ask(text, at)
        data = answer.get("data")
        if answer.get("status") != "success" or not isinstance(data, Mapping) or data.get("resultType") != "vector":
            raise PrometheusError(f"{self.name}: the answer is not Prometheus': is this its address?")
        try:
            found = [(dict(series["metric"]), float(series["value"][1])) for series in data["result"]]
        except (KeyError, IndexError, TypeError, ValueError):
            raise PrometheusError(f"{self.name}: the answer is not Prometheus': is this its address?") from None
        return [(labels, value) for labels, value in found if value == value]  # not a number: nothing was there

    def _ask(self, text: str, at: float) -> Mapping[str, Any]:
        body = urllib.parse.urlencode({"query": text, "time": f"{at:.3f}", "timeout": f"{self.timeout_s:g}s"})
        try:
            status, content = self._get(f"api/v1/query?{body}")
        except TimeoutError:
            text = f"no answer in {self.timeout_s:g} s: see whether it is up, or give it longer with --timeout"
            raise PrometheusError(f"{self.name}: {text}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise PrometheusError(
                f"{self.name}: cannot be asked ({reason}); is it up, and is this its address?"
            ) from None
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if status != 200:
            self._refused(status, answer)
        if not isinstance(answer, Mapping):
            raise PrometheusError(f"{self.name}: the answer is not Prometheus': is this its address?")
        return answer

    def _get(self, path: str) -> tuple[int, bytes]:
        """HTTP's status and the body. Raises TimeoutError, OSError, HTTPException, ValueError."""
        parts = urllib.parse.urlsplit(self.url)
        whom, _, netloc = parts.netloc.rpartition("@")
        place = urllib.parse.urlunsplit(parts._replace(netloc=netloc, path=parts.path.rstrip("/") + "/"))
        headers = {"Accept": "application/json", "User-Agent": "wattkeeper"}
        if whom:
            headers["Authorization"] = f"Basic {base64.b64encode(urllib.parse.unquote(whom).encode()).decode()}"
        request = urllib.request.Request(urllib.parse.urljoin(place, path), headers=headers)  # noqa: S310 - see `is_address`
        deadline = SystemClock().mono() + self.timeout_s
        try:
            answer = urllib.request.urlopen(request, timeout=self.timeout_s)  # noqa: S310 - the same
        except urllib.error.HTTPError as error:
            answer = error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise TimeoutError from None
            raise
        with answer:
            return int(answer.status), _body(answer, deadline)

    def _refused(self, status: int, answer: Any) -> None:
        said = printable(str(answer.get("error", ""))) if isinstance(answer, Mapping) else ""
        if "too many samples" in said:
            raise TooMuchError(f"{self.name}: {said}; ask for fewer days, or raise its --query.max-samples")
        if status in {401, 403}:
            raise PrometheusError(f"{self.name}: HTTP status {status}: give user and password: http://user:password@…")
        reason = said or "is this Prometheus' address?"
        raise PrometheusError(f"{self.name}: HTTP status {status}: {reason}")


def is_address(url: str) -> bool:
    """Whether a text is the address of an HTTP server."""
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def _body(answer: Any, deadline: float) -> bytes:
    """What is read until the deadline. Raises TimeoutError, and ValueError where it is far too long."""
    parts: list[bytes] = []
    size = 0
    while part := answer.read1(65536):
        parts.append(part)
        size += len(part)
        if SystemClock().mono() > deadline:
            raise TimeoutError
        if size > _MOST_BYTES:
            raise ValueError("its answer is longer than 64 MiB")
    return b"".join(parts)


def read_cluster(
    prometheus: Prometheus,
    question: Question,
    now_at: float,
    cluster: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """The answer to a question by account, partition or day, for every node of a cluster that Prometheus has scraped.

    ``cluster`` is the value of that label, empty for targets without it; None: of the only one that there is. The days
    are those of this machine's time zone. Raises PrometheusError, also where there are no such series, or several
    clusters and none is named.
    """
    parts: list[Part] = []
    nobodys = {IDLE_METRIC: Amount(), UNATTRIBUTED_METRIC: Amount()}
    clusters: set[str] = set()
    since: str | None = None
    for day, gains in _by_day(prometheus, question, now_at, progress):
        clusters |= {labels.get("cluster", "") for _, labels, _ in gains}
        if cluster is None and len(clusters) > 1:
            names = _names(clusters)
            raise PrometheusError(f"{prometheus.name}: it has several clusters: {names}: choose one with --cluster")
        for metric, labels, joules in gains:
            if cluster not in {None, labels.get("cluster", "")}:
                continue
            since = since or day
            energy_mj = Millijoules(round(joules * 1000))
            if metric in nobodys:
                nobodys[metric] += Amount(energy_mj)
            else:
                parts.append(((labels.get("account", ""), labels.get("partition", ""), day), energy_mj, None, None))
    if since is None:
        raise PrometheusError(f"{prometheus.name}: {_nothing(question, cluster, clusters)}")
    rows, left = grouped(question, ("account", "partition", "day"), parts)
    idle, unattributed = nobodys.values()
    name = clusters.pop() if cluster is None else cluster
    return Report(question, prometheus.name, tuple(rows), left, idle, unattributed, since, name)


def _names(clusters: set[str]) -> str:
    return ", ".join(printable(name) or NAMELESS for name in sorted(clusters))


def _nothing(question: Question, cluster: str | None, clusters: set[str]) -> str:
    days = f"from {question.first_day} to {question.last_day}"
    if clusters:
        return f"it has no cluster '{printable(cluster or NAMELESS)}' {days}, but {_names(clusters)}"
    return f"it has no {ACCOUNT_METRIC} {days}: does it scrape the agents, and keep samples for so long?"


Gain = tuple[str, Mapping[str, str], float]
"""What a counter gained, in joules, after its metric's name and the labels by which it is kept apart."""


def _by_day(
    prometheus: Prometheus, question: Question, now_at: float, progress: Callable[[str], None] | None
) -> Iterator[tuple[str, list[Gain]]]:
    """Each day and what the counters gained on it, up to now."""
    first, last = date.fromisoformat(question.first_day), date.fromisoformat(question.last_day)
    days = list(map(date.fromordinal, range(first.toordinal(), last.toordinal() + 1)))
    for number, day in enumerate(days, 1):
        if progress is not None:
            progress(f"asking Prometheus: day {number} of {len(days)}")
        start, end = begins_at(day), min(begins_at(day + timedelta(days=1)), now_at)
        if end - start < 1:
            continue
        yield (
            day.isoformat(),
            [
                (metric, labels, joules)
                for metric, by in _KEPT_APART.items()
                for labels, joules in _increase(prometheus, metric, by, start, end)
            ],
        )


def _increase(prometheus: Prometheus, metric: str, by: tuple[str, ...], start: float, end: float) -> Series:
    """What a counter gained from ``start`` to ``end``, summed over nodes; asked in halves where that is too much."""
    try:
        return prometheus.query(increase_of(metric, by, round(end - start)), end)
    except TooMuchError:
        if end - start < 2 * SHORTEST_S:
            raise
    middle = (start + end) / 2
    return [*_increase(prometheus, metric, by, start, middle), *_increase(prometheus, metric, by, middle, end)]


def increase_of(metric: str, by: tuple[str, ...], seconds: int) -> str:
    """PromQL for what a counter gained in so many seconds, to the sample: nothing is guessed at the window's edges.

    It is the last value of this window less the last before it, up to an hour old, or else its first value here; where
    the counter began anew meanwhile, Prometheus' own ``increase()``. See deploy/prometheus/rules.yml.
    """
    counter = metric + ('{domain="gpu"}' if metric == ACCOUNT_METRIC else "")
    window = f"[{seconds}s]"
    before = f"(last_over_time({counter}[1h] offset {seconds}s) or min_over_time({counter}{window}))"
    gained = f"((last_over_time({counter}{window}) - {before}) >= 0 unless resets({counter}{window}) > 0)"
    return f"sum by ({', '.join(by)}) ({gained} or increase({counter}{window}))"
