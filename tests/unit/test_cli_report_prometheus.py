"""``wattkeeper report --prometheus``: against a small HTTP server, and its PromQL against Prometheus' own engine."""

import base64
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from wattkeeper.cli.main import cli
from wattkeeper.cli.prom import ACCOUNT_METRIC, IDLE_METRIC, UNATTRIBUTED_METRIC, PrometheusError, increase_of
from wattkeeper.errors import WattkeeperError

PROMTOOL = shutil.which("promtool") or ""


def vector(*series: tuple[dict[str, str], float]) -> dict[str, Any]:
    result = [{"metric": labels, "value": [0, str(value)]} for labels, value in series]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@dataclass
class Stub:
    """Answers by the metric that is asked for; ``most_s``: what a question may span before it is too much;
    ``since_at``: what ended before is not known."""

    url: str = ""
    status: int = 200
    body: Any = None
    delay_s: float = 0.0
    drip: bool = False
    most_s: int = 10**9
    since_at: float = 0.0
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, float]] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)

    def reply(self, query: dict[str, list[str]]) -> tuple[int, bytes]:
        text, at = query["query"][0], float(query["time"][0])
        self.asked.append((text, at))
        if self.body is not None:
            return self.status, self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        if max(map(int, re.findall(r"\[(\d+)s\]", text))) > self.most_s:
            error = "query processing would load too many samples into memory in query execution"
            return 422, json.dumps({"status": "error", "errorType": "execution", "error": error}).encode()
        known = self.answers.items() if at > self.since_at else ()
        found = next((answer for metric, answer in known if metric in text), vector())
        return self.status, json.dumps(found).encode()


@pytest.fixture
def prometheus() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(stub.delay_s)
            stub.headers.append(self.headers["Authorization"])
            parts = urlsplit(self.path)
            assert parts.path == "/prefix/api/v1/query"
            status, body = stub.reply(parse_qs(parts.query))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + (100 if stub.drip else 0)))
            self.end_headers()
            self.wfile.write(body)
            while stub.drip:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            return

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True  # whoever asked has gone

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}/prefix/"
    try:
        yield stub
    finally:
        stub.drip = False
        server.shutdown()
        server.server_close()
        thread.join()


def run(stub: Stub, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["report", "--prometheus", stub.url, *arguments])


def trouble(stub: Stub, *arguments: str) -> str:
    """What a person reads when it does not work."""
    result = run(stub, "--since", "yesterday", "--until", "yesterday", *arguments)
    assert isinstance(result.exception, WattkeeperError), result.output
    assert str(result.exception).startswith(f"{stub.url}: ")
    return str(result.exception).removeprefix(f"{stub.url}: ")


def fill(stub: Stub) -> None:
    labels = [{"account": "ml", "partition": "gpu"}, {"account": "ml", "partition": "debug"}, {"partition": "gpu"}]
    stub.answers = {
        ACCOUNT_METRIC: vector((labels[0], 3.6e6), (labels[1], 3.6e6), (labels[2], 7.2e6)),
        IDLE_METRIC: vector(({}, 1.8e6)),
        UNATTRIBUTED_METRIC: vector(({}, 0.0)),
    }


def test_each_day_is_asked_for_and_summed(prometheus: Stub) -> None:
    fill(prometheus)
    result = run(prometheus, "--since", "3d", "--until", "yesterday", "--by", "account", "--json")
    assert result.exit_code == 0, result.output + str(result.exception)
    answer = json.loads(result.output)
    energies = {row["account"]: row["energy_j"] for row in answer["rows"]}
    assert energies == {"ml": 2 * 7.2e6, None: 2 * 7.2e6}
    assert [row["share"] for row in answer["rows"]] == pytest.approx([7.2 / 16.2] * 2)
    assert (answer["idle"]["energy_j"], answer["total"]["energy_j"]) == (3.6e6, 2 * 16.2e6)
    assert (answer["rows"][0]["jobs"], answer["rows"][0]["gpu_hours"]) == (None, None)
    ends = sorted({at for _, at in prometheus.asked})
    assert [later - earlier for earlier, later in pairwise(ends)] in (
        [86400.0],
        [82800.0],
        [90000.0],
    )


def test_the_table_says_nothing_of_what_prometheus_does_not_know(prometheus: Stub) -> None:
    fill(prometheus)
    output = run(prometheus, "--since", "yesterday", "--until", "yesterday", "--by", "partition,account").output
    assert "from http://127.0.0.1" in output
    rows = [line.split() for line in output.splitlines()[3:]]
    assert rows == [
        ["gpu", "(none)", "2.000", "-", "-", "-", "44.4%"],
        ["gpu", "ml", "1.000", "-", "-", "-", "22.2%"],
        ["debug", "ml", "1.000", "-", "-", "-", "22.2%"],
        ["idle", "0.500", "-", "-", "-", "11.1%"],
        ["unattributed", "0.000", "-", "-", "-", "0.0%"],
        ["total", "4.500", "-", "-", "-", "100.0%"],
    ]


def several(stub: Stub) -> None:
    """Two clusters, and a target without the label."""
    names: tuple[dict[str, str], ...] = ({"cluster": "alpha"}, {"cluster": "beta"}, {})
    accounts = [({"account": "ml", "partition": "gpu", **name}, 3.6e6 * (at + 1)) for at, name in enumerate(names)]
    stub.answers = {
        ACCOUNT_METRIC: vector(*accounts),
        IDLE_METRIC: vector(*((name, 1.8e6) for name in names)),
        UNATTRIBUTED_METRIC: vector(*((name, 0.0) for name in names)),
    }


def test_clusters_are_never_summed(prometheus: Stub) -> None:
    several(prometheus)
    said = trouble(prometheus)
    assert said == "it has several clusters: (none), alpha, beta: choose one with --cluster"
    assert len(prometheus.asked) == 3, "it is said after the first day"
    assert trouble(prometheus, "--cluster", "gamma").startswith("it has no cluster 'gamma' from ")
    assert trouble(prometheus, "--cluster", "gamma").endswith(", but (none), alpha, beta")


@pytest.mark.parametrize(("name", "shown", "energy_j"), [("beta", "beta", 7.2e6), ("(none)", None, 10.8e6)])
def test_one_cluster_is_chosen(prometheus: Stub, name: str, shown: str | None, energy_j: float) -> None:
    several(prometheus)
    words = ("--since", "yesterday", "--until", "yesterday", "--cluster", name)
    answer = json.loads(run(prometheus, *words, "--json").output)
    assert (answer["cluster"], [row["energy_j"] for row in answer["rows"]]) == (shown, [energy_j])
    assert answer["total"]["energy_j"] == energy_j + 1.8e6
    heading = run(prometheus, *words).output.splitlines()[0]
    assert heading.startswith(f"GPU energy of cluster {shown} of " if shown else "GPU energy of 2")


def test_the_only_cluster_needs_no_choice(prometheus: Stub) -> None:
    name = {"cluster": "alpha"}
    prometheus.answers = {ACCOUNT_METRIC: vector(({"account": "ml", "partition": "gpu", **name}, 3.6e6))}
    result = run(prometheus, "--since", "yesterday", "--until", "yesterday")
    assert result.output.startswith("GPU energy of cluster alpha of "), result.exception


def test_days_before_the_first_scrape_are_not_claimed(prometheus: Stub) -> None:
    fill(prometheus)
    day = date.today() - timedelta(days=1)  # noqa: DTZ011 - the days are local
    prometheus.since_at = datetime(day.year, day.month, day.day).astimezone().timestamp()
    words = ("--since", "5d", "--until", "yesterday")
    assert f" to {day} (metered since {day}), by account" in run(prometheus, *words).output
    assert json.loads(run(prometheus, *words, "--json").output)["metered_since"] == str(day)
    assert "metered since" not in run(prometheus, "--since", "yesterday").output


def test_nothing_is_asked_of_the_future(prometheus: Stub) -> None:
    fill(prometheus)
    before = time.time()
    assert run(prometheus, "--since", "today").exit_code in {0, 1}  # 1 in the first second of a day
    assert all(at <= time.time() for _, at in prometheus.asked)
    assert all(at >= before - 1 for _, at in prometheus.asked)


@pytest.fixture
def days_of_24_hours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("days_of_24_hours")
def test_what_is_too_much_is_asked_in_halves(prometheus: Stub) -> None:
    fill(prometheus)
    prometheus.most_s = 6 * 3600 + 1
    answer = json.loads(run(prometheus, "--since", "yesterday", "--until", "yesterday", "--json").output)
    assert answer["total"]["energy_j"] == 4 * 16.2e6, "each of four quarters answered with the same"
    prometheus.most_s = 60
    assert "too many samples into memory" in trouble(prometheus)


def test_user_and_password_reach_prometheus_and_nobody_else(prometheus: Stub) -> None:
    fill(prometheus)
    plain, prometheus.url = prometheus.url, prometheus.url.replace("http://", "http://me:s%40crt@")
    output = run(prometheus, "--since", "yesterday", "--until", "yesterday").output
    assert prometheus.headers[0] == "Basic " + base64.b64encode(b"me:s@crt").decode()
    assert plain in output
    assert "crt" not in output


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, vector(), f"it has no {ACCOUNT_METRIC} from"),
        (200, b"<html>", "the answer is not Prometheus': is this its address?"),
        (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}, "the answer is not Prometheus'"),
        (200, {"status": "success", "data": {"resultType": "vector", "result": [{}]}}, "the answer is not Prometheus'"),
        (404, b"<html>", "HTTP status 404: is this Prometheus' address?"),
        (400, {"status": "error", "error": "parse\nerror"}, "HTTP status 400: parse\\x0aerror"),
        (401, b"", "HTTP status 401: give user and password: http://user:password@…"),
        (503, {"status": "error", "error": "starting"}, "HTTP status 503: starting"),
    ],
)
def test_other_answers_are_told(prometheus: Stub, status: int, body: Any, said: str) -> None:
    prometheus.status, prometheus.body = status, body
    assert trouble(prometheus).startswith(said)


@pytest.mark.parametrize("how", ["late", "dripping"])
def test_an_answer_that_takes_too_long_is_not_waited_for(prometheus: Stub, how: str) -> None:
    prometheus.delay_s, prometheus.drip = (0.6, False) if how == "late" else (0.0, True)
    start = time.monotonic()
    assert trouble(prometheus, "--timeout", "0.2").startswith("no answer in 0.2 s")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "url", ["ftp://host/", "nonsense", "http://[::bad", "http://host:99999", "http://", "host:9090"]
)
def test_what_is_no_address_is_wrong_use(url: str) -> None:
    result = CliRunner().invoke(cli, ["report", "--prometheus", url])
    assert result.exit_code == 2
    assert "is no address, such as http://prometheus:9090" in result.output


def test_nobody_listens() -> None:
    result = CliRunner().invoke(cli, ["report", "--prometheus", "http://127.0.0.1:1"])
    assert isinstance(result.exception, PrometheusError)
    assert str(result.exception).startswith("http://127.0.0.1:1: cannot be asked ([Errno 111] Connection refused)")


@pytest.mark.parametrize("arguments", [["--by", "user"], ["--user", "a*"]])
def test_users_are_not_in_prometheus(prometheus: Stub, arguments: list[str]) -> None:
    result = run(prometheus, *arguments)
    assert result.exit_code == 2
    assert "Prometheus knows no users: --by may be account, partition and day" in result.output


ENGINE = [
    # (what a counter shows each minute, what it gained in the last five minutes to minute 20)
    ("0+60x20", 300, "a counter that grows evenly"),
    ("0x16 0 120 120 120 120", 120, "one short job"),
    ("_x16 0 120 _x10", 120, "a label set that came, at 0, and went"),
    ("_x17 500 500 500", 0, "one that Prometheus has not seen before: what it shows first is of before"),
    ("100x12 _x4 130 130 130 130", 30, "an agent that was away: what was charged meanwhile counts"),
    ("1000x17 0 40 40", 40, "a ledger that was lost: the counter began anew"),
]


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed on this machine")
def test_prometheus_engine_counts_to_the_joule(tmp_path: Path) -> None:
    """Nothing is guessed at the edges of a window, unlike `increase()`: what is billed must be what was metered."""
    cases = [
        {
            "interval": "1m",
            "input_series": [
                {"series": f"{ACCOUNT_METRIC}{{{labels}}}", "values": values}
                for labels in (f'account="ml",partition="gpu",domain="gpu",node="n1",cluster="{name}"' for name in "ab")
            ],
            "promql_expr_test": [
                {
                    "expr": increase_of(ACCOUNT_METRIC, ("cluster", "account", "partition"), 300),
                    "eval_time": "20m",
                    "exp_samples": [
                        {"labels": f'{{cluster="{name}", account="ml", partition="gpu"}}', "value": gained}
                        for name in "ab"
                    ],
                }
            ],
        }
        for values, gained, _ in ENGINE
    ]
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": [], "tests": cases}))
    done = subprocess.run([PROMTOOL, "test", "rules", str(tmp_path / "tests.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
