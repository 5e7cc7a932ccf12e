"""``metrics.web_config``: what is read, and every refusal with its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.config.web import FileAt, RateLimit, WebConfig, parse_web
from wattkeeper.errors import ConfigError

FILE = Path("/etc/wattkeeper/web.yaml")
HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
"""The toolkit's own example, from its docs/web-configuration.md."""

TLS = "tls_server_config:\n  cert_file: c.pem\n  key_file: /k.pem\n"


def parse(text: str) -> WebConfig:
    return parse_web(FILE, text)


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value).split("\n")


def test_reads_every_key() -> None:
    config = parse(
        f"""
        tls_server_config:
          cert_file: server.crt
          key_file: /etc/keys/server.key
          client_auth_type: RequireAndVerifyClientCert
          client_ca_file: ca.pem
          client_allowed_sans: [prometheus.example.org, "0:0:0:0:0:0:0:1"]
          min_version: TLS12
          max_version: TLS13
          cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
          prefer_server_cipher_suites: false
          curve_preferences: [X25519]
        http_server_config:
          http2: true
          headers: {{X-Frame-Options: deny, X-XSS-Protection: "", Strict-Transport-Security: max-age=1}}
        basic_auth_users:
          alice: {HASH}
        rate_limit: {{interval: 500ms, burst: 20}}
        """
    )
    assert config.tls is not None
    assert config.tls.cert == FileAt(Path("/etc/wattkeeper/server.crt"), 3)
    assert config.tls.key == FileAt(Path("/etc/keys/server.key"), 4)
    assert config.tls.client_ca == FileAt(Path("/etc/wattkeeper/ca.pem"), 6)
    assert config.tls.client_sans == {"prometheus.example.org", "::1"}
    assert (config.tls.least, config.tls.most) == ("TLS12", "TLS13")
    assert config.tls.ciphers == ("ECDHE-RSA-AES128-GCM-SHA256",)
    assert (config.tls.prefer_server_ciphers, config.tls.curve) == (False, "X25519")
    assert config.headers == (("X-Frame-Options", "deny"), ("Strict-Transport-Security", "max-age=1"))
    assert config.users == (("alice", HASH),)
    assert config.rate_limit == RateLimit(0.5, 20)
    assert config.guards == {"TLS", "client certificates", "client_allowed_sans", "passwords"}
    (note,) = config.notes
    assert str(note).startswith(f"{FILE}:14: warning: http_server_config.http2: has no effect: HTTP/1.1 is served")


def test_tls_alone_authenticates_nobody() -> None:
    config = parse(TLS)
    assert config.tls is not None
    assert config.tls.client_auth == "NoClientCert"
    assert not config.authenticates
    assert parse(f"basic_auth_users: {{a: {HASH}}}").authenticates


def test_suites_of_tls_13_alone_leave_no_other() -> None:
    config = parse(f"{TLS}  cipher_suites: [TLS_AES_256_GCM_SHA384]")
    assert config.tls is not None
    assert (config.tls.least, config.tls.ciphers) == ("TLS13", ())


def test_an_interval_of_0_is_no_limit() -> None:
    assert parse("rate_limit: {interval: 0, burst: 1}").rate_limit is None


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "~"])
def test_an_empty_file_is_refused(text: str) -> None:
    (line,) = errors(text)
    assert line.startswith(f"{FILE}:1: is empty: it names neither TLS nor users (mend: ")


@pytest.mark.parametrize(
    ("text", "line", "path", "said"),
    [
        ("tls_config: {}", 1, "tls_config", "unknown key: did you mean 'tls_server_config'?"),
        ("tls_server_config: {key_file: k}", 1, "tls_server_config", "'cert_file' is missing"),
        ("tls_server_config:", 1, "tls_server_config", "must be a mapping, not nothing"),
        ("tls_server_config:\n  cert_file: c", 2, "tls_server_config", "'key_file' is missing"),
        (
            "tls_server_config:\n  cert: x\n  key_file: k",
            2,
            "tls_server_config.cert",
            "Python's ssl reads files only: put it in a file, and name that as cert_file",
        ),
        (f"{TLS}  key: x", 4, "tls_server_config.key", "put it in a file, and name that as key_file"),
        (f"{TLS}  cert_fil: x", 4, "tls_server_config.cert_fil", "did you mean 'cert_file'?"),
        (f"{TLS}  min_version: TLS10", 4, "tls_server_config.min_version", "TLS10 is broken and not offered"),
        (f"{TLS}  max_version: SSL3", 4, "tls_server_config.max_version", "is not one of these"),
        (f"{TLS}  min_version: TLS13\n  max_version: TLS12", 4, "tls_server_config", "nothing is left between"),
        (
            f"{TLS}  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]",
            4,
            "tls_server_config",
            "nothing is left between min_version and max_version, with these cipher_suites",
        ),
        (
            f"{TLS}  cipher_suites:\n    - TLS_RSA_WITH_RC4_128_SHA",
            5,
            "tls_server_config.cipher_suites",
            "'TLS_RSA_WITH_RC4_128_SHA' is not one of these",
        ),
        (f"{TLS}  curve_preferences: [P256]", 4, "tls_server_config.curve_preferences", "is not one of these"),
        (
            f"{TLS}  curve_preferences: [X25519, CurveP256]",
            4,
            "tls_server_config.curve_preferences",
            "Python's ssl takes one curve",
        ),
        (f"{TLS}  client_auth_type: Maybe", 4, "tls_server_config.client_auth_type", "'Maybe' is not one of these"),
        (
            f"{TLS}  client_auth_type: RequireAnyClientCert",
            4,
            "tls_server_config.client_auth_type",
            "takes any certificate, which keeps nobody out",
        ),
        (
            f"{TLS}  client_auth_type: RequireAndVerifyClientCert",
            4,
            "tls_server_config.client_auth_type",
            "client_ca_file is missing",
        ),
        (f"{TLS}  client_ca_file: ca", 4, "tls_server_config.client_ca_file", "is never used without"),
        (
            f"{TLS}  client_ca_file: ca\n  client_auth_type: NoClientCert",
            5,
            "tls_server_config.client_auth_type",
            "client_ca_file is never used with it",
        ),
        (f"{TLS}  client_allowed_sans: [a]", 4, "tls_server_config.client_allowed_sans", "needs client_auth_type"),
        (f"{TLS}  prefer_server_cipher_suites: yes", 4, "tls_server_config.prefer_server_cipher_suites", "not one of"),
        ("http_server_config: {http2: 2}", 1, "http_server_config.http2", "not one of these"),
        (
            "http_server_config:\n  headers:\n    Server: x",
            3,
            "http_server_config.headers.Server",
            "unknown key (allowed: Strict-Transport-Security",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: allow",
            3,
            "http_server_config.headers.X-Frame-Options",
            "'allow' is not one of these (allowed: deny, sameorigin)",
        ),
        (
            'http_server_config:\n  headers:\n    X-XSS-Protection: "1\\nSet-Cookie: a"',
            3,
            "http_server_config.headers.X-XSS-Protection",
            "a header is one line of ASCII",
        ),
        ("basic_auth_users:", 1, "basic_auth_users", "names no user"),
        ("basic_auth_users: {}", 1, "basic_auth_users", "names no user"),
        (f"basic_auth_users:\n  a:b: {HASH}", 2, "basic_auth_users.a:b", "a name is not empty and has no colon"),
        (f"basic_auth_users:\n  a: {HASH[:-1]}", 2, "basic_auth_users.a", "is not a bcrypt hash"),
        (
            f"basic_auth_users:\n  a: {HASH.replace('$10$', '$15$')}",
            2,
            "basic_auth_users.a",
            "has the cost 15, and each check would take seconds (allowed: 4 to 14, such as 10)",
        ),
        (f"basic_auth_users:\n  a: {HASH}\n  a: {HASH}", 3, "", "key 'a' is given twice"),
        ("rate_limit: {interval: 1s}", 1, "rate_limit.burst", "is needed, or nobody is served"),
        ("rate_limit: {interval: 1s, burst: 0}", 1, "rate_limit.burst", "is needed, or nobody is served"),
        ("rate_limit:\n  interval: fast\n  burst: 1", 2, "rate_limit.interval", "'fast' is not a duration"),
    ],
)
def test_refuses(text: str, line: int, path: str, said: str) -> None:
    found = errors(text)
    assert len(found) == 1, found
    assert found[0].startswith(f"{FILE}:{line}: {path}: " if path else f"{FILE}:{line}: ")
    assert said in found[0]


def test_a_password_that_stands_where_its_hash_belongs_is_not_printed() -> None:
    (line,) = errors("basic_auth_users: {alice: hunter2}")
    assert "hunter2" not in line


def test_says_all_at_once() -> None:
    text = f"basic_auth_users: {{a: b}}\n{TLS}  client_auth_type: x\nhttp: 1\n"
    assert [line.split(":")[1] for line in errors(text)] == ["1", "5", "6"]


@given(st.text(max_size=200) | st.text("tlsbaic_uhr:[]{}\n ,-$*&!#'\"", max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except ConfigError as error:
        assert error.problems
