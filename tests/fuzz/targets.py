"""What is fuzzed: each target takes any bytes, and raises where they did what they must not."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.doors import HttpDoors
from tests.property.hostile import harmless, harmless_json, harmless_lines
from wattkeeper.config.policy import parse_policies
from wattkeeper.config.settings import parse_settings
from wattkeeper.config.web import parse_web
from wattkeeper.core.request import TEXT_LIMIT, Asked, Malformed, NoRequest, parse_comment
from wattkeeper.errors import ConfigError
from wattkeeper.privileged import server as actuator
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.privileged.limits import Limits
from wattkeeper.slurm.hook_event import EventError, EventKind, parse_event

GPU = "GPU-00000000-0000-0000-0000-000000000001"
MIN_MW, BASELINE_MW = 200_000, 600_000

Throw = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """``open`` gives what bytes are thrown at, which lives until the stack is closed; ``words``: what to mix in."""

    name: str
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    open: Callable[[ExitStack], Throw]


def _comment(raw: bytes) -> None:
    request = parse_comment(raw.decode(errors="surrogateescape"))
    assert isinstance(request, NoRequest | Malformed | Asked)
    if not isinstance(request, NoRequest):
        assert len(request.text) <= TEXT_LIMIT
        harmless(request.text)


def _yaml(raw: bytes) -> None:
    text = raw.decode(errors="replace")
    for read in (
        lambda: parse_policies([("a.yaml", text)]),
        lambda: parse_settings("a.yaml", text),
        lambda: parse_web(Path("/etc/a.yaml"), text),
    ):
        try:
            read()
        except ConfigError as error:
            assert error.problems
            harmless_lines(str(error), 2_000)


def _hook(raw: bytes) -> None:
    for kind in EventKind:
        try:
            event = parse_event(kind, raw)
        except EventError as error:
            harmless(str(error))
        else:
            assert 0 <= event.job.key.job_id <= 9_999_999_999
            assert not isinstance(event.job.comment, str) or len(event.job.comment) <= 4_096


class _Device(Limits):
    """A GPU that takes what it is told, and says what it has: the rules of `Limits` are what is looked at."""

    def __init__(self) -> None:
        self.limit_mw = BASELINE_MW

    def set_limit(self, uuid: str, limit_mw: int) -> int:
        assert uuid.isascii() and "/" not in uuid and "." not in uuid and len(uuid) < 70, uuid
        assert type(limit_mw) is int and 0 < limit_mw < 2**31
        if uuid != GPU or not MIN_MW <= limit_mw <= BASELINE_MW:
            raise DeviceError(Kind.AGAIN, uuid, "no")
        self.limit_mw = limit_mw
        return limit_mw

    give_back = set_limit

    def claim(self, uuid: str) -> int:
        return self.set_limit(uuid, self.limit_mw)

    save_baseline = claim

    def baseline(self, uuid: str) -> tuple[int | None, bool]:
        return self.claim(uuid), True


def _actuator(stack: ExitStack) -> Throw:
    device = _Device()
    told: list[str] = []
    actuator.REFUSAL_S = 0
    server = actuator.Server(device, {0}, told.append)

    def throw(raw: bytes) -> None:
        before = device.limit_mw
        answer = server._answer(raw)
        if "is" in answer:
            asked = json.loads(raw)
            assert asked.keys() == {"do"} | actuator._WORDS[asked["do"]]
            assert device.limit_mw == before or (asked["gpu"], asked["mw"]) == (GPU, device.limit_mw)
        else:
            assert device.limit_mw == before and answer.keys() == {"kind", "device", "tried", "mend"}
        harmless_json(json.loads(json.dumps(answer)))
        for line in told:
            harmless(line)
        told.clear()

    return throw


def _http(stack: ExitStack) -> Throw:
    return stack.enter_context(HttpDoors()).throw


_ENVIRONMENT = (
    b"SLURM_CLUSTER_NAME=lab\0SLURM_JOB_ID=7\0SLURM_JOB_UID=1000\0SLURM_JOB_USER=alice\0SLURM_JOB_PARTITION=gpu\0"
    b"SLURM_JOB_RESTART_COUNT=0\0SLURM_JOB_GPUS=0,1\0SLURM_JOB_COMMENT=power=250W\0SLURMD_NODENAME=node1\0"
)
_POLICY = b"""version: 1
profiles: {eco: {cap: 60%}, fit: {cap: [{model: "*H100*", cap: 450W}]}}
caps:
  - name: debug
    when: {partition: [debug], gpus: ">=2", not: {user: [alice]}, node: "n[1-3]"}
    cap: eco
    requests: {min: 50%, max: baseline}
ceilings:
  - {name: peak, when: {schedule: {months: jun-sep, days: mon-fri, hours: "12:00-18:00"}}, cap: 70%, ramp: 10m}
idle: {cap: baseline}
shared_gpus: highest
"""
_SETTINGS = b"""mode: enforce
interval: 5s
gpus: {library: null, include: [0], map: {0: 1}, baseline: {"*H100*": 700W}}
metrics: {listen: "127.0.0.1:9745", job_labels: id, grace: 5m}
slurm: {lookup: auto, timeout: 2s, event_users: [root], strict: "off"}
"""
_WEB = b"""tls_server_config: {cert_file: a, key_file: b, client_auth_type: NoClientCert, min_version: TLS12}
http_server_config: {headers: {X-Frame-Options: deny}}
basic_auth_users: {alice: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG}
"""


def _post(path: bytes, body: bytes) -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body)


TARGETS = {
    target.name: target
    for target in (
        Target(
            "comment",
            (b"power=250W", b"x power=70% y", b'{"power": "0.25kW", "a": [1]}', b"POWER=eco;power=eco", b"power = 2 W"),
            (b"power", b"=", b"W", b"kW", b"%", b'"', b"{", b"}", b"baseline", b"\xe2\x80\x8b", b"\xed\xa0\x80", b"0."),
            lambda _: _comment,
        ),
        Target(
            "yaml",
            (_POLICY, _SETTINGS, _WEB),
            (b"&a", b"*a", b"<<: ", b"!!python/object:os.system", b"- ", b": ", b"{", b"[", b"|\n", b"null", b"\t",
             b"\xff", b"? ", b"---\n", b"%YAML 1.1\n", b"1e999", b"0x1", b"2001-01-01", b"\xc2\x85",
             b"n[1-99999999]", b"9999999%"),
            lambda _: _yaml,
        ),
        Target(
            "hook",
            (_ENVIRONMENT, _ENVIRONMENT.replace(b"0,1", b"0-7"), b"", b"SLURM_JOB_ID=1\0SLURM_JOB_UID=0\0"),
            (b"\0", b"=", b"SLURM_JOB_ID", b"SLURM_JOB_GPUS", b"-1", b"99999999999", b"\n", b"SLURM_JOB_SLUID=s"),
            lambda _: _hook,
        ),
        Target(
            "http",
            (
                b"\0GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n",
                b"\0GET /v1/jobs/7 HTTP/1.0\r\n\r\n",
                b"\0" + _post(b"/v1/events/prolog", _ENVIRONMENT),
                b"\0" + _post(b"/v1/events/epilog", _ENVIRONMENT),
                b"\0" + _post(b"/v1/control/hold", b'{"gpu": 0, "for": "2h", "reason": "x"}'),
                b"\0" + _post(b"/v1/control/resume", b"{}"),
                b"\1GET /v1/jobs/7/line HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                b"\1" + _post(b"/v1/control/hold", b"{}"),
                b"\2GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\nAccept-Encoding: gzip\r\n\r\n",
            ),
            (b"\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: -1\r\n", b"Expect: 100-continue\r\n",
             b"%00", b"%2e%2e/", b"HTTP/9.9", b"Content-Encoding: gzip\r\n", b"Upgrade: websocket\r\n", b"{", b"\xff",
             b"0\r\n\r\n"),
            _http,
        ),
        Target(
            "actuator",
            (
                b'{"do": "set_limit", "gpu": "%s", "mw": 250000}' % GPU.encode(),
                b'{"do": "give_back", "gpu": "%s", "mw": 600000}' % GPU.encode(),
                b'{"do": "claim", "gpu": "%s"}' % GPU.encode(),
                b'{"do": "evidence", "pid": 1}',
            ),
            (b'"do"', b'"gpu"', b'"mw"', b"NaN", b"1e3", b"-", b"true", b"null", b"[", b"{", b"\\u0000", b"../",
             b"save_baseline", b"baseline", b"\xff\xfe", b"2147483648"),
            _actuator,
        ),
    )
}  # fmt: skip
