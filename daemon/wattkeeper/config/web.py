"""``metrics.web_config``: a file in the format of Prometheus' exporter-toolkit, docs/web-configuration.md there.

YAML in, ``WebConfig`` out, or every problem at once. What Python's ``ssl`` cannot do is an error here, never passed
over: an admin who writes it believes himself protected by it. Stricter than the toolkit: an empty file is an error,
because a file that was emptied by accident would otherwise open the port to everybody.
"""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from wattkeeper.config.walk import Walk, join, raise_if_any
from wattkeeper.config.yaml_lines import Items, Node, Null, Table, Text, parse
from wattkeeper.errors import ConfigError, Problem
from wattkeeper.text import printable
from wattkeeper.units import parse_duration

ClientAuth = Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]

WEB_KEYS = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
_TLS = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)
_INLINE = {"cert": "cert_file", "key": "key_file", "client_ca": "client_ca_file"}
_CLIENT_AUTH = ("NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
_UNVERIFIED = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
_VERSIONS = ("TLS12", "TLS13")
_HEADERS: dict[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
"""Go's names of curves, and OpenSSL's."""

CIPHERS = {
    f"TLS_ECDHE_{key}_WITH_{suite}": f"ECDHE-{key}-{name}"
    for key in ("ECDSA", "RSA")
    for suite, name in {
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
    }.items()
}
"""Go's names of the suites of TLS 1.2 that it holds secure, and OpenSSL's."""

_CIPHERS_13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_BCRYPT = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_HASH = "a bcrypt hash, from `htpasswd -nBC 10 NAME`"
MOST_COST = 14
"""One check takes about a second at this cost, and twice as long at the next; a scrape has ten by default."""

_MOST_USERS = 1000


@dataclass(frozen=True, slots=True)
class FileAt:
    """A file that the configuration names, and the line where it does."""

    path: Path
    line: int


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """``tls_server_config``. ``ciphers``: OpenSSL's names, of TLS 1.2; empty: OpenSSL's own choice."""

    cert: FileAt
    key: FileAt
    client_ca: FileAt | None = None
    client_auth: ClientAuth = "NoClientCert"
    client_sans: frozenset[str] = frozenset()
    least: Literal["TLS12", "TLS13"] = "TLS12"
    most: Literal["TLS12", "TLS13"] = "TLS13"
    ciphers: tuple[str, ...] = ()
    prefer_server_ciphers: bool = True
    curve: str | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``rate_limit``: a token every so many seconds, and so many in store."""

    interval_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says. ``users``: names, and bcrypt hashes of their passwords."""

    tls: TlsConfig | None = None
    headers: tuple[tuple[str, str], ...] = ()
    users: tuple[tuple[str, str], ...] = ()
    rate_limit: RateLimit | None = None
    notes: tuple[Problem, ...] = ()
    """What was accepted and has no effect."""

    @property
    def guards(self) -> frozenset[str]:
        """What stands between a stranger and the page, in words for a message."""
        found = {"TLS"} if self.tls else set()
        if self.tls and self.tls.client_auth == "RequireAndVerifyClientCert":
            found |= {"client certificates"} | ({"client_allowed_sans"} if self.tls.client_sans else set())
        return frozenset(found | ({"passwords"} if self.users else set()))

    @property
    def authenticates(self) -> bool:
        """True where nobody is served who did not show a password or a certificate."""
        return bool(self.guards & {"passwords", "client certificates"})


def parse_web(file: Path, text: str) -> WebConfig:
    """The configuration that a text says. No I/O. Relative paths in it are relative to the folder of ``file``.

    Raises ``ConfigError`` with every problem at once.
    """
    root, found = parse(str(file), text)
    problems: list[Problem] = list(found)
    if root is None or (isinstance(root, Table) and not root.entries):
        text = "is empty: it names neither TLS nor users (mend: metrics.web_config: null serves without them)"
        raise ConfigError((*problems, Problem(str(file), 1, "", text)))
    config = _Reader(Walk(str(file), problems), file.parent).read(root)
    raise_if_any(problems)
    return config


class _Reader:
    def __init__(self, walk: Walk, folder: Path) -> None:
        self._walk = walk
        self._folder = folder

    def read(self, root: Node) -> WebConfig:
        top = {key: value for key, (_, value) in self._walk.table(root, "", WEB_KEYS).items()}
        headers, notes = self._http(top["http_server_config"]) if "http_server_config" in top else ((), ())
        return WebConfig(
            tls=self._tls(top["tls_server_config"]) if "tls_server_config" in top else None,
            headers=headers,
            users=self._users(top["basic_auth_users"]) if "basic_auth_users" in top else (),
            rate_limit=self._rate(top["rate_limit"]) if "rate_limit" in top else None,
            notes=notes,
        )

    def _tls(self, node: Node) -> TlsConfig | None:
        path, walk = "tls_server_config", self._walk
        required = [key for key in ("cert_file", "key_file") if not _has(node, key.removesuffix("_file"))]
        table = walk.table(node, path, _TLS, required, tuple(_INLINE))
        for key in table.keys() & _INLINE.keys():
            text = f"Python's ssl reads files only: put it in a file, and name that as {_INLINE[key]}"
            walk.error(table[key][0], join(path, key), text)
        known = {key: value for key, (_, value) in table.items()}
        files = {key: self._file(known[key], join(path, key)) for key in _INLINE.values() if key in known}
        least, most = (self._version(known, key) for key in ("min_version", "max_version"))
        suites = self._suites(known.get("cipher_suites"))
        if suites and not any(name in CIPHERS for name in suites):
            least = "TLS13"  # as in Go: no suite of TLS 1.2 is left
        if (least, most) == ("TLS13", "TLS12"):
            at = known.get("min_version") or known.get("max_version") or node
            walk.error(at, path, "nothing is left between min_version and max_version, with these cipher_suites")
        cert, key_file, ca = (files.get(name) for name in ("cert_file", "key_file", "client_ca_file"))
        auth = self._client_auth(known, has_ca="client_ca_file" in known)
        sans, curve = self._sans(known, auth), self._curve(known.get("curve_preferences"))
        prefer = known.get("prefer_server_cipher_suites")
        preferred = None if prefer is None else walk.flag(prefer, join(path, "prefer_server_cipher_suites"))
        if cert is None or key_file is None:
            return None
        ciphers = tuple(CIPHERS[name] for name in suites if name in CIPHERS)
        lowest = cast("Literal['TLS12', 'TLS13']", least or "TLS12")
        highest = cast("Literal['TLS12', 'TLS13']", most or "TLS13")
        return TlsConfig(cert, key_file, ca, auth, sans, lowest, highest, ciphers, preferred is not False, curve)

    def _file(self, node: Node, path: str) -> FileAt | None:
        text = self._walk.text(node, path, "a file")
        return None if text is None else FileAt(self._folder / text, node.line)

    def _version(self, known: dict[str, Node], key: str) -> str | None:
        if key not in known:
            return None
        text = self._walk.text(known[key], join("tls_server_config", key), ", ".join(_VERSIONS))
        if text in ("TLS10", "TLS11"):
            self._walk.error(
                known[key], join("tls_server_config", key), f"{text} is broken and not offered", ", ".join(_VERSIONS)
            )
        elif text is not None:
            return self._walk.choice(known[key], join("tls_server_config", key), _VERSIONS)
        return None

    def _suites(self, node: Node | None) -> tuple[str, ...]:
        path = "tls_server_config.cipher_suites"
        if node is None or (isinstance(node, Items) and not node.items):
            return ()
        texts, allowed = self._walk.one_or_more(node, path), (*CIPHERS, *_CIPHERS_13)
        return tuple(found for text in texts if (found := self._walk.choice(text, path, allowed)) is not None)

    def _curve(self, node: Node | None) -> str | None:
        path = "tls_server_config.curve_preferences"
        if node is None or (isinstance(node, Items) and not node.items):
            return None
        texts = self._walk.one_or_more(node, path)
        names = [found for text in texts if (found := self._walk.choice(text, path, tuple(CURVES))) is not None]
        if len(texts) > 1:
            self._walk.error(node, path, "Python's ssl takes one curve: name one, or leave it out")
        return CURVES[names[0]] if names else None

    def _client_auth(self, known: dict[str, Node], *, has_ca: bool) -> ClientAuth:
        path, walk = "tls_server_config.client_auth_type", self._walk
        node = known.get("client_auth_type")
        if node is None or isinstance(node, Null):
            if has_ca:
                text = "is never used without client_auth_type: RequireAndVerifyClientCert"
                walk.error(known["client_ca_file"], "tls_server_config.client_ca_file", text)
            return "NoClientCert"
        if isinstance(node, Text) and node.value in _UNVERIFIED:
            text = f"{node.value} takes any certificate, which keeps nobody out, and Python's ssl cannot"
            walk.error(node, path, text, ", ".join(_CLIENT_AUTH))
            return "NoClientCert"
        found = walk.choice(node, path, _CLIENT_AUTH)
        if found is not None and (found != "NoClientCert") != has_ca:
            needs = "is never used with it: leave it out" if has_ca else "is missing, to verify certificates by"
            walk.error(node, path, f"{found}: client_ca_file {needs}")
        return cast("ClientAuth", found or "NoClientCert")

    def _sans(self, known: dict[str, Node], auth: ClientAuth) -> frozenset[str]:
        node, path = known.get("client_allowed_sans"), "tls_server_config.client_allowed_sans"
        if node is None:
            return frozenset()
        texts = self._walk.one_or_more(node, path)
        if auth != "RequireAndVerifyClientCert":
            self._walk.error(node, path, "needs client_auth_type: RequireAndVerifyClientCert")
        return frozenset(plain_san(text.value) for text in texts)

    def _http(self, node: Node) -> tuple[tuple[tuple[str, str], ...], tuple[Problem, ...]]:
        path, walk = "http_server_config", self._walk
        known = {key: value for key, (_, value) in walk.table(node, path, ("http2", "headers")).items()}
        notes: tuple[Problem, ...] = ()
        if "http2" in known and walk.flag(known["http2"], join(path, "http2")):
            text = "has no effect: HTTP/1.1 is served, which every client of HTTP/2 falls back to"
            notes = (Problem(walk.file, known["http2"].line, join(path, "http2"), text, warning=True),)
        path = join(path, "headers")
        table = walk.table(known["headers"], path, tuple(_HEADERS)) if "headers" in known else {}
        pairs = [(name, self._header(value, join(path, name), _HEADERS[name])) for name, (_, value) in table.items()]
        return tuple((name, value) for name, value in pairs if value), notes

    def _header(self, node: Node, path: str, allowed: tuple[str, ...]) -> str | None:
        """A header's value; None: unset, as the toolkit has it for a blank one."""
        if isinstance(node, Null) or (isinstance(node, Text) and not node.value.strip()):
            return None
        text = self._walk.choice(node, path, allowed) if allowed else self._walk.text(node, path)
        if text is not None and not (text.isascii() and text.isprintable()):
            self._walk.error(node, path, "a header is one line of ASCII")
            return None
        return text

    def _users(self, node: Node) -> tuple[tuple[str, str], ...]:
        path, walk = "basic_auth_users", self._walk
        if not isinstance(node, Table) or not node.entries:
            walk.error(node, path, "names no user: leave it out, or put one in", f"a mapping of names to {_HASH}s")
            return ()
        if len(node.entries) > _MOST_USERS:
            walk.error(node, path, f"has more than {_MOST_USERS} users: put a proxy before the port")
        return tuple(pair for key, value in node.entries if (pair := self._user(key, value)) is not None)

    def _user(self, key: Text, value: Node) -> tuple[str, str] | None:
        """A name and its hash. A wrong one is never printed: it may be the password itself."""
        path = join("basic_auth_users", printable(key.value, 60))
        if not key.value or ":" in key.value:
            self._walk.error(key, path, "a name is not empty and has no colon (RFC 7617)")
        text = self._walk.text(value, path, _HASH)
        found = None if text is None else _BCRYPT.fullmatch(text)
        if text is not None and found is None:
            self._walk.error(value, path, "is not a bcrypt hash", _HASH)
        elif found is not None and not 4 <= int(found["cost"]) <= MOST_COST:
            said = f"has the cost {int(found['cost'])}, and each check would take seconds"
            self._walk.error(value, path, said, f"4 to {MOST_COST}, such as 10")
        return None if text is None else (key.value, text)

    def _rate(self, node: Node) -> RateLimit | None:
        path, walk = "rate_limit", self._walk
        known = {key: value for key, (_, value) in walk.table(node, path, ("interval", "burst")).items()}
        if "interval" not in known:
            return None
        text = walk.text(known["interval"], "rate_limit.interval", "0, or a duration such as 1s")
        interval_s = 0.0 if text == "0" else None if text is None else parse_duration(text)
        if text is not None and interval_s is None:
            walk.error(known["interval"], "rate_limit.interval", f"'{printable(text, 60)}' is not a duration")
        burst = walk.text(known["burst"], "rate_limit.burst", "a count") if "burst" in known else None
        if "burst" not in known or (burst is not None and not re.fullmatch(r"[1-9][0-9]{0,5}", burst)):
            walk.error(known.get("burst", node), "rate_limit.burst", "is needed, or nobody is served", "1, 2, 3 …")
            return None
        return RateLimit(interval_s, int(burst)) if interval_s and burst else None


def plain_san(text: str) -> str:
    """A subject alternative name as it is compared: addresses in their one short form, anything else as it is."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _has(node: Node, key: str) -> bool:
    return isinstance(node, Table) and any(name.value == key for name, _ in node.entries)
