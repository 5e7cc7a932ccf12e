"""The metrics' listener: what it answers, and what it takes from those who are slow, big or many."""

import asyncio
import http.client
import socket
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.lab.processes import program
from tests.lab.waiting import wait_until
from tests.unit.web_here import serving

from wattkeeper.api.bind import bind_tcp
from wattkeeper.api.web_client import Limits
from wattkeeper.config.settings import Listen, UnixListen
from wattkeeper.errors import WattkeeperError

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"


def closed(channel: socket.socket, within_s: float = 15) -> bool:
    """Waits until the other end closes."""
    channel.settimeout(within_s)
    try:
        while channel.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_serves_the_page_and_a_way_to_it() -> None:
    with serving() as site:
        answer = site.get(headers={"User-Agent": "Prometheus/2.42"})
        assert (answer.status, answer.body) == (200, b"a 1\n")  # type: ignore[attr-defined]
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert site.asked == [("127.0.0.1 Prometheus/2.42", False)]
        assert b"/metrics" in site.get("/").body  # type: ignore[attr-defined]
        assert site.get("/v1/status").status == 404
        post = site.get(method="POST")
        assert (post.status, post.headers["Allow"]) == (405, "GET,HEAD")
        assert site.get(method="HEAD").status == 200


def test_one_connection_serves_many_scrapes() -> None:
    with serving(limits=Limits(request_bytes=1000)) as site:
        connection = site.open()
        for _ in range(20):
            connection.request("GET", "/metrics")
            assert connection.getresponse().read() == b"a 1\n"
        connection.close()


def test_a_port_that_is_taken_is_one_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(WattkeeperError, match=r"^metrics\.listen 127\.0\.0\.1:\d+: Address already in use; choose"):
            asyncio.run(bind_tcp(Listen("127.0.0.1", other.getsockname()[1])))


def test_a_unix_socket_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with serving(listen=UnixListen(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        done = subprocess.run(
            [program("curl"), "-sS", "--unix-socket", str(path), "http://x/metrics"], capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == ("a 1\n", "")
        with (
            pytest.raises(WattkeeperError, match="something is there; choose another path, or remove it"),
            serving(listen=UnixListen(path)),
        ):
            pass
    assert not path.exists()


def test_a_socket_that_nobody_answers_on_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    left, file = tmp_path / "left.sock", tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    with serving(listen=UnixListen(left)):
        assert left.is_socket()
    file.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(file)
    for path in (file, link):
        with pytest.raises(WattkeeperError, match="something is there"), serving(listen=UnixListen(path)):
            pass
    assert file.read_text() == "precious"
    missing = tmp_path / "no" / "m.sock"
    with pytest.raises(WattkeeperError, match="No such file or directory"), serving(listen=UnixListen(missing)):
        pass


def test_half_a_request_is_cut_off() -> None:
    with serving(limits=Limits(header_s=0.3, idle_s=60)) as site:
        start = time.monotonic()
        with site.connect() as silent, site.connect() as slow:
            slow.sendall(GET)
            assert closed(silent)
            assert closed(slow)
        assert time.monotonic() - start < 3


def test_a_request_that_drips_is_cut_off() -> None:
    with serving(limits=Limits(header_s=0.5, idle_s=60)) as site, site.connect() as drip:
        start = time.monotonic()
        drip.sendall(GET)
        with pytest.raises(ConnectionError):
            while time.monotonic() - start < 10:
                drip.sendall(b"X: y\r\n")
                time.sleep(0.02)
        assert time.monotonic() - start < 5


def test_a_second_half_request_on_a_good_connection_is_cut_off() -> None:
    with serving(limits=Limits(header_s=2, idle_s=60)) as site, site.connect() as channel:
        channel.sendall(GET + b"\r\n")
        assert channel.recv(4096).startswith(b"HTTP/1.1 200")
        channel.sendall(GET)
        assert closed(channel, within_s=20)


def test_an_idle_connection_is_closed() -> None:
    with serving(limits=Limits(idle_s=0.3)) as site, site.connect() as channel:
        channel.sendall(GET + b"\r\n")
        assert closed(channel)


@pytest.mark.parametrize(
    "sent",
    [
        GET + b"X: " + b"x" * 100_000,
        GET + b"".join(b"X%d: y\r\n" % at for at in range(20_000)),
        GET + b"Content-Length: 10000000\r\n\r\n" + b"x" * 1_000_000,
        GET + b"Transfer-Encoding: chunked\r\n\r\n" + b"ffffff\r\n" + b"x" * 1_000_000,
        (GET + b"\r\n") * 20_000,
    ],
    ids=["header", "headers", "body", "chunks", "pipeline"],
)
def test_what_is_too_big_is_cut_off(sent: bytes) -> None:
    with serving() as site:
        with site.connect() as channel:
            with suppress(OSError):
                channel.sendall(sent)
            assert closed(channel)
        assert site.get().status == 200


def test_who_does_not_read_is_cut_off() -> None:
    with serving(limits=Limits(request_s=0.5)) as site:
        site.page = b"x" * 20_000_000
        with site.connect() as channel:
            channel.sendall(GET + b"\r\n")
            time.sleep(1.5)
            assert closed(channel)
        site.page = b"a 1\n"
        assert site.get().status == 200


def test_a_crowd_that_asks_nothing_makes_room() -> None:
    with serving(limits=Limits(clients=8)) as site:
        crowd = [site.connect() for _ in range(30)]
        scraper = site.open()
        scraper.request("GET", "/metrics")
        assert scraper.getresponse().read() == b"a 1\n"
        assert all(closed(channel) for channel in crowd[:20])
        assert site.metrics is not None
        assert len(site.metrics._room._clients) <= 8
        for channel in crowd:
            channel.close()
        scraper.close()


def test_a_crowd_does_not_drive_out_who_is_known() -> None:
    with serving(limits=Limits(clients=4)) as site:
        scraper = site.open()
        for _ in range(5):
            scraper.request("GET", "/metrics")
            assert scraper.getresponse().read() == b"a 1\n"
            used = scraper.sock
            crowd = [site.connect() for _ in range(10)]
            assert all(closed(channel) for channel in crowd[:6])
            assert scraper.sock is used
            for channel in crowd:
                channel.close()
        scraper.close()


def test_garbage_is_answered_with_400() -> None:
    with serving() as site, site.connect() as channel:
        channel.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")  # a TLS greeting where none is spoken
        assert channel.recv(4096).startswith(b"HTTP/1.0 400")


def test_closing_lets_everybody_go() -> None:
    with serving() as site:
        channel = site.connect()
        kept = site.open()
        kept.request("GET", "/metrics")
        kept.getresponse().read()
    assert closed(channel)
    channel.close()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        kept.request("GET", "/metrics")
        kept.getresponse()
    kept.close()


def test_clients_that_left_leave_nothing() -> None:
    with serving() as site:
        for _ in range(20):
            site.get()
        assert site.metrics is not None
        room = site.metrics._room._clients
        wait_until(lambda: not room, 1, "everybody who left is forgotten", note=False)
