"""TLS on the metrics' listener: certificates on both sides, files that change, and files that are wrong."""

import shutil
import ssl
from pathlib import Path

import pytest
from tests.lab.certificates import OPENSSL, Authority, Pair
from tests.lab.processes import environment, run
from tests.unit.web_here import Site, serving

from wattkeeper.api.web_file import WebFile
from wattkeeper.errors import ConfigError

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="not installed on this machine: openssl")

HASH = "$2b$04$......................wrongwrongwrongwrongwrongwrong1"
REQUIRE = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of one authority, and one of another; made once, because it takes a while."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder)
    for name in ("server", "server2"):
        authority.issue(name)
    authority.issue("client", sans="DNS:prometheus.example.org,IP:::1")
    other = tmp_path_factory.mktemp("other")
    stranger = Authority(other, "other").issue("stranger")
    shutil.copy(stranger.cert, folder)
    shutil.copy(stranger.key, folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "etc"))


def web_config(folder: Path, more: str = "", rest: str = "") -> Path:
    path = folder / "web.yaml"
    path.write_text(f"tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n{more}{rest}")
    return path


def trusting(folder: Path, client: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if client is not None:
        context.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    return context


def put(source: Pair, target: Pair) -> None:
    """As tools for certificates do: a new file takes the old one's name."""
    for new, old in ((source.key, target.key), (source.cert, target.cert)):
        scratch = old.with_suffix(".new")
        shutil.copy(new, scratch)
        scratch.replace(old)


def pair(folder: Path, name: str) -> Pair:
    return Pair(folder / f"{name}.pem", folder / f"{name}.key")


def name_shown(site: Site, folder: Path) -> str:
    with site.connect() as channel, trusting(folder).wrap_socket(channel, server_hostname="127.0.0.1") as tls:
        shown = tls.getpeercert()
    assert shown is not None
    return dict(field[0] for field in shown["subject"])["commonName"]  # type: ignore[misc]


def refused(site: Site, tls: ssl.SSLContext | None) -> bool:
    """True where nothing was served."""
    before = len(site.asked)
    try:
        site.get(tls=tls)
    except (OSError, ssl.SSLError):
        return len(site.asked) == before
    return False


def test_serves_over_tls_and_nothing_without(folder: Path) -> None:
    with serving(web_config(folder, rest="http_server_config: {headers: {X-Frame-Options: deny}}")) as site:
        answer = site.get(tls=trusting(folder))
        assert answer.status == 200
        assert answer.headers["X-Frame-Options"] == "deny"
        assert site.asked[0][1] is False
        assert refused(site, None)


def test_the_versions_and_suites_that_were_asked_for(folder: Path) -> None:
    suite = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n"
    with serving(web_config(folder, suite + "  curve_preferences: [CurveP384]\n")) as site:
        with site.connect() as channel, trusting(folder).wrap_socket(channel, server_hostname="127.0.0.1") as tls:
            assert (tls.version(), (tls.cipher() or ("",))[0]) == ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
        late = trusting(folder)
        late.minimum_version = ssl.TLSVersion.TLSv1_3
        assert refused(site, late)


def test_only_verified_clients_come_in(folder: Path) -> None:
    with serving(web_config(folder, REQUIRE)) as site:
        assert refused(site, trusting(folder))
        assert refused(site, trusting(folder, "stranger"))
        assert site.get(tls=trusting(folder, "client")).status == 200
        assert site.asked[-1][1] is True


def test_only_names_that_are_allowed_come_in(folder: Path) -> None:
    path = web_config(folder, REQUIRE + "  client_allowed_sans: ['0:0::1', nobody.example.org]\n")
    with serving(path) as site:
        assert site.get(tls=trusting(folder, "client")).status == 200
        assert site.get(tls=trusting(folder, "server2")).status == 403
        assert len(site.asked) == 1


def test_a_certificate_may_be_asked_for_and_not_needed(folder: Path) -> None:
    more = REQUIRE.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
    with serving(web_config(folder, more)) as site:
        assert site.get(tls=trusting(folder)).status == 200
        assert refused(site, trusting(folder, "stranger"))
        assert site.asked[-1][1] is False


def test_a_rotated_certificate_is_shown_at_the_next_handshake(folder: Path) -> None:
    with serving(web_config(folder)) as site:
        assert name_shown(site, folder) == "server"
        kept = site.open(trusting(folder))
        kept.request("GET", "/metrics")
        kept.getresponse().read()
        put(pair(folder, "server2"), pair(folder, "server"))
        assert name_shown(site, folder) == "server2"
        with pytest.raises((OSError, ssl.SSLError)):  # who came in by the old one has to come again
            kept.request("GET", "/metrics")
            kept.getresponse()
        kept.close()


def test_a_certificate_of_another_key_waits_for_its_key(folder: Path) -> None:
    with serving(web_config(folder)) as site:
        shutil.copy(folder / "server2.pem", folder / "server.pem")
        assert site.get(tls=trusting(folder)).status == 200
        assert site.metrics is not None
        assert f"tls_server_config.key_file: {folder}/server.key is not the key of" in (site.metrics.alarm or "")
        shutil.copy(folder / "server2.key", folder / "server.key")
        assert name_shown(site, folder) == "server2"
        assert site.metrics.alarm is None


@pytest.mark.parametrize("name", ["web.yaml", "server.pem", "server.key"])
def test_a_file_that_vanishes_opens_nothing(folder: Path, name: str) -> None:
    with serving(web_config(folder)) as site:
        (folder / name).unlink()
        assert site.get(tls=trusting(folder)).status == 200
        assert refused(site, None)
        assert site.metrics is not None
        assert "cannot be read: No such file" in (site.metrics.alarm or "")


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("", "is empty"),
        ("http_server_config: {}\n", "would take TLS and client certificates and passwords from the port"),
        (f"basic_auth_users: {{a: {HASH}}}\n", "would take TLS and client certificates from the port"),
        (
            "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n" + REQUIRE,
            "would take passwords from the port: restart the agent if that is meant",
        ),
    ],
)
def test_a_change_takes_no_guard_away(folder: Path, text: str, lost: str) -> None:
    path = web_config(folder, REQUIRE, f"basic_auth_users: {{a: {HASH}}}\n")
    with serving(path) as site:
        path.write_text(text)
        assert site.get(tls=trusting(folder, "client")).status == 401
        assert refused(site, None)
        assert site.metrics is not None
        assert lost in (site.metrics.alarm or "")
    assert site.asked == []


def test_a_change_may_add_a_guard(folder: Path) -> None:
    path = folder / "web.yaml"
    path.write_text("http_server_config: {}\n")
    with serving(path) as site:
        kept = site.open()
        kept.request("GET", "/metrics")
        assert kept.getresponse().read() == b"a 1\n"
        web_config(folder)
        assert site.get(tls=trusting(folder)).status == 200
        assert refused(site, None)
        with pytest.raises(OSError):
            kept.request("GET", "/metrics")
            kept.getresponse()
        kept.close()


def test_who_came_in_plain_is_not_served_once_there_is_tls(folder: Path) -> None:
    path = folder / "web.yaml"
    path.write_text("http_server_config: {}\n")
    with serving(path) as site:
        kept = site.open()
        kept.request("GET", "/metrics")
        kept.getresponse().read()
        web_config(folder)
        kept.request("GET", "/metrics")  # the first to come after the change
        assert kept.getresponse().status == 403
        kept.close()
    assert len(site.asked) == 1


def _encrypted(folder: Path) -> None:
    argv = ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", "server2.key", "-out", "server.key"]
    run([argv[0], *argv[1:-3], str(folder / argv[-3]), argv[-2], str(folder / argv[-1])], environment(folder))


@pytest.mark.parametrize(
    ("spoil", "line", "key", "said"),
    [
        (lambda folder: (folder / "server.pem").unlink(), 2, "cert_file", "server.pem cannot be read: No such file"),
        (lambda folder: (folder / "server.key").unlink(), 3, "key_file", "server.key cannot be read: No such file"),
        (lambda folder: (folder / "ca.pem").unlink(), 5, "client_ca_file", "ca.pem cannot be read: No such file"),
        (lambda folder: (folder / "ca.pem").write_text("no"), 5, "client_ca_file", "no certificates in PEM form"),
        (lambda folder: (folder / "server.pem").write_text("no"), 2, "cert_file", "not a certificate and its key"),
        (
            lambda folder: shutil.copy(folder / "server2.key", folder / "server.key"),
            3,
            "key_file",
            "server.key is not the key of",
        ),
        (_encrypted, 3, "key_file", "server.key is encrypted, and nobody is there to type"),
    ],
)
def test_what_cannot_be_used_stops_the_start(folder: Path, spoil: object, line: int, key: str, said: str) -> None:
    path = web_config(folder, REQUIRE)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(ConfigError) as caught:
        WebFile(path)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{path}:{line}: tls_server_config.{key}: ")
    assert said in problem.text


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [("server.key", 0o644, "lets everybody read it"), ("ca.pem", 0o664, "write"), ("web.yaml", 0o666, "write")],
)
def test_what_others_could_change_or_a_key_that_they_could_read_is_refused(
    folder: Path, name: str, mode: int, said: str
) -> None:
    path = web_config(folder, REQUIRE)
    (folder / name).chmod(mode)
    with pytest.raises(ConfigError, match=said):
        WebFile(path)


def test_a_certificate_may_be_a_link_that_is_set_anew(folder: Path) -> None:
    for name in ("server.pem", "server.key"):
        (folder / name).rename(folder / f"old-{name}")
        (folder / name).symlink_to(f"old-{name}")
    (folder / "server.key").chmod(0o640)
    with serving(web_config(folder)) as site:
        assert name_shown(site, folder) == "server"
        for name in ("server.pem", "server.key"):
            link = folder / f"new-{name}"
            link.symlink_to(name.replace("server", "server2"))
            link.replace(folder / name)
        assert name_shown(site, folder) == "server2"


def test_a_folder_is_no_certificate(folder: Path) -> None:
    (folder / "server.pem").unlink()
    (folder / "server.pem").mkdir()
    with pytest.raises(ConfigError, match=r"web\.yaml:2: tls_server_config\.cert_file: .*is not a regular file"):
        WebFile(web_config(folder))


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"web\.yaml: cannot be read: No such file"):
        WebFile(tmp_path / "web.yaml")
