"""Who may scrape: the real Prometheus with TLS, certificates and passwords, and a crowd before the port."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest

from tests.e2e.agents import POLICY, hook_environment, one_node, plain_settings, post
from tests.lab import Lab, Node, wait_until
from tests.lab.agent import AGENT_UID
from tests.lab.certificates import OPENSSL, Authority
from tests.lab.processes import free_ports, program
from tests.lab.prometheus import Prometheus
from tests.lab.sockets import request
from tests.lab.spec import REPO, Files
from tests.lab.waiting import record

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="not installed on this machine: openssl")

PASSWORD = "a good password"  # noqa: S105 - it opens nothing
TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"
REQUIRE = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
JOBS = ("plain", "tls", "certificate", "password", "wrong-password", "other-ca")
NO_PASSWORD = ("tls", "certificate", "password", "wrong-password")
"""Who is served where nobody asks for one."""

SLOW, GUESSES_PER_S, GREEDY, CROWD_S = 200, 50, 50, 12
HOOK_BOUND_S = 0.1
"""What a crowd before the port may add to a hook's time, at the 99th percentile."""


@dataclass(frozen=True)
class Door:
    """An agent whose port is guarded by `web.yaml`, and a Prometheus that comes to it in every way there is."""

    lab: Lab
    folder: Path
    prometheus: Prometheus

    @property
    def node(self) -> Node:
        return self.lab.node(1)

    @property
    def port(self) -> int:
        return self.node.agent.metrics_port

    def guard(self, text: str) -> None:
        scratch = self.folder / "web.new"
        scratch.write_text(text)
        scratch.replace(self.folder / "web.yaml")

    def start(self, guard: str | None) -> None:
        """Starts the agent anew, its port guarded by this text or by none."""
        if guard is not None:
            self.guard(guard)
        settings = plain_settings(self.node)
        web = None if guard is None else str(self.folder / "web.yaml")
        self.node.write_settings({**settings, "metrics": {**settings["metrics"], "web_config": web}})
        self.node.agent.restart()

    def wait_served(self, *jobs: str, bound_s: float = 4) -> None:
        """Waits until Prometheus has these jobs up and all the others down."""
        wanted = {job: "up" if job in jobs else "down" for job in JOBS}
        wait_until(lambda: self.prometheus.targets() == wanted, bound_s, f"served: {', '.join(jobs)}", note=False)

    def page(self) -> str:
        """The page, for who has the password."""
        headers = {"Authorization": "Basic " + b64encode(f"prometheus:{PASSWORD}".encode()).decode()}
        asked = urllib.request.Request(f"https://127.0.0.1:{self.port}/metrics", headers=headers)
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        with urllib.request.urlopen(asked, context=context, timeout=10) as answer:  # noqa: S310 - our own address
            return str(answer.read().decode())


def users() -> str:
    return f'basic_auth_users:\n  prometheus: "{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()}"\n'


def scrapes(folder: Path, port: int) -> list[dict[str, object]]:
    """The scrape configurations of `JOBS`, in Prometheus' own words."""
    ca = {"ca_file": str(folder / "ca.pem")}
    own = {**ca, "cert_file": str(folder / "client.pem"), "key_file": str(folder / "client.key")}
    ways: dict[str, dict[str, object]] = {
        "plain": {"scheme": "http"},
        "tls": {"tls_config": ca},
        "certificate": {"tls_config": own},
        "password": {"tls_config": ca, "basic_auth": {"username": "prometheus", "password": PASSWORD}},
        "wrong-password": {"tls_config": ca, "basic_auth": {"username": "prometheus", "password": "guessed"}},
        "other-ca": {"tls_config": {"ca_file": str(folder / "other.pem")}},
    }
    return [
        {
            "job_name": job,
            "scheme": "https",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"node": job}}],
            **ways[job],
        }
        for job in JOBS
    ]


def let_agent_read(path: Path) -> None:
    """As docs/metrics-access.md says: a key belongs to root, and to the agent's group."""
    if AGENT_UID is not None:
        os.chown(path, 0, AGENT_UID)
        path.chmod(0o640)


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with tempfile.TemporaryDirectory(prefix="wk-web-", dir="/tmp") as folder:  # where the agent's user may go
        yield from _door(Path(folder).resolve())


def _door(folder: Path) -> Iterator[Door]:
    folder.chmod(0o755)
    authority = Authority(folder)
    for name in ("server", "server2", "client"):
        authority.issue(name)
    Authority(folder, "other")
    for name in ("server.key", "server2.key"):
        let_agent_read(folder / name)
    with one_node(policy=POLICY) as lab:
        node = lab.node(1)
        files = Files(lab.files.root / "scrapes")
        for needed in (files.etc, files.log):
            needed.mkdir(parents=True)
        (port,) = free_ports(1)
        prometheus = Prometheus(files, port, {}, more=scrapes(folder, node.agent.metrics_port))
        door = Door(lab, folder, prometheus)
        door.start(TLS)
        prometheus.start()
        prometheus.wait_ready()
        yield door
        prometheus.stop()


def test_tls(door: Door) -> None:
    door.wait_served(*NO_PASSWORD)


def test_a_rotated_certificate_costs_no_scrape(door: Door) -> None:
    door.wait_served(*NO_PASSWORD)
    before = time.monotonic()
    for end in ("key", "pem"):
        shutil.copy(door.folder / f"server2.{end}", door.folder / f"new.{end}")
        let_agent_read(door.folder / f"new.{end}")
        (door.folder / f"new.{end}").replace(door.folder / f"server.{end}")

    def shown() -> bool:
        done = subprocess.run(
            [program("openssl"), "s_client", "-connect", f"127.0.0.1:{door.port}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return "subject=CN = server2" in done.stdout or "subject=CN=server2" in done.stdout

    assert shown()
    time.sleep(3)
    (row,) = door.prometheus.query(f'avg_over_time(up{{job="tls"}}[{int(time.monotonic() - before) + 1}s])')
    assert row[1] >= 0.5  # a loaded machine may need longer for one or two than the second that it has
    assert door.node.agent.get("/v1/status")["alarms"] == []


def test_client_certificates_without_a_restart(door: Door) -> None:
    door.guard(TLS + REQUIRE)
    door.wait_served("certificate")


def test_passwords(door: Door) -> None:
    door.start(TLS + REQUIRE)
    door.wait_served("certificate")
    door.guard(TLS)
    lost = "would take client certificates from the port: restart the agent if that is meant"

    def alarmed() -> bool:
        return any(lost in alarm for alarm in door.node.agent.get("/v1/status")["alarms"])

    wait_until(alarmed, 3, "a change that takes a guard away is told of", note=False)
    door.wait_served("certificate")
    door.start(TLS + users())
    door.wait_served("password")
    assert [value for _, value in door.prometheus.query('up{job="wrong-password"}')] == [0]
    assert door.node.agent.log_text().count("wrong user or password") <= 2


def test_names_are_for_those_who_have_shown_who_they_are(door: Door) -> None:
    door.start(TLS + users())
    assert post(door.node, "prolog", 11, JOB_ACCOUNT="physics") == "applied"
    assert 'slurm_job_id="11",user="user1000"' in door.page().replace(", ", ",")
    _, local = request(door.node.agent.read_socket, "/metrics")
    assert b'slurm_job_id="11"' in local
    assert b"user1000" not in local
    assert post(door.node, "epilog", 11) == "applied"


def _p99_s(node: Node, seconds: float, first: int) -> float:
    """Jobs start and end, one after another, for that long."""
    took: list[float] = []
    until = time.monotonic() + seconds
    job = first
    while time.monotonic() < until:
        for event in ("prolog", "epilog"):
            start = time.monotonic()
            status, body = node.agent.post_event(event, hook_environment(job, "0", JOB_COMMENT="power=300W"))
            took.append(time.monotonic() - start)
            assert status == 200, body
        job += 1
        time.sleep(0.02)
    return sorted(took)[int(len(took) * 0.99)]


def _hooks_beside(door: Door, what: str, place: object, *crowd_of: str | int) -> dict[str, int]:
    """Hooks are answered as if no crowd were there; what the crowd has seen."""
    quiet_s = _p99_s(door.node, 4, 1_000)
    argv = [sys.executable, str(REPO / "tests" / "lab" / "crowd.py"), str(place), str(CROWD_S), *map(str, crowd_of)]
    crowd = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(2)
        halves = [_p99_s(door.node, CROWD_S / 2 - 2, first) for first in (10_000, 20_000)]
        said, _ = crowd.communicate(timeout=60)
    finally:
        crowd.kill()
        crowd.wait()
    seen: dict[str, int] = json.loads(said)
    p99_s = min(halves)  # the crowd is there all the while, and what else the machine does perhaps not
    print(f"{what}: {seen}; p99 of hooks {quiet_s * 1e3:.1f} ms without them, {p99_s * 1e3:.1f} ms with them")
    record(f"p99 that {what} add to hooks", max(0.0, p99_s - quiet_s), HOOK_BOUND_S)
    return seen


def test_hooks_do_not_wait_for_slow_clients_and_guessed_passwords(door: Door) -> None:
    door.start(TLS + users())
    door.wait_served("password")
    ca = str(door.folder / "ca.pem")
    seen = _hooks_beside(door, "slow clients and guessed passwords", door.port, SLOW, GUESSES_PER_S, 0, ca)
    assert seen["slow came"] >= SLOW
    assert sum(count for what, count in seen.items() if what.startswith("password ")) >= GUESSES_PER_S * CROWD_S / 4
    assert "password 200" not in seen
    assert door.prometheus.query('avg_over_time(up{job="password"}[8s])')[0][1] >= 0.5  # it has a second for each
    door.wait_served("password")


def test_hooks_do_not_wait_for_greedy_clients(door: Door) -> None:
    door.start(None)
    door.wait_served("plain")
    seen = _hooks_beside(door, "greedy clients", door.port, 0, 0, GREEDY)
    assert seen["scraped"] >= CROWD_S
    assert door.prometheus.query('avg_over_time(up{job="plain"}[8s])')[0][1] >= 0.5


def test_hooks_do_not_wait_for_greedy_users_of_the_node(door: Door) -> None:
    seen = _hooks_beside(door, "greedy users of the node", door.node.agent.read_socket, 0, 0, GREEDY)
    assert seen["scraped"] >= CROWD_S


def test_a_unix_socket(door: Door) -> None:
    path = door.node.files.run_dir / "metrics.sock"
    node = door.node
    node.write_settings({**node.settings, "metrics": {"listen": f"unix:{path}"}})
    node.agent.restart()
    curl = [program("curl"), "-sS", "--unix-socket", str(path), "http://x/metrics"]
    done = subprocess.run(curl, capture_output=True, text=True)
    assert "wattkeeper_build_info" in done.stdout, done.stderr
    door.wait_served()
