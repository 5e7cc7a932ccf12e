"""``metrics.web_config`` as it is in force, with the certificates that it names: read again when one of them changes.

A file that cannot be used stops the start; later it leaves in force what was. Nor does a change ever take away TLS or
a check of who asks: a file caught while it is written, or emptied by accident, must not open the port. That needs a
restart.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from wattkeeper.api.web_auth import need_bcrypt
from wattkeeper.config.web import FileAt, TlsConfig, WebConfig, parse_web
from wattkeeper.config.yaml_lines import read_text
from wattkeeper.errors import ConfigError, Problem
from wattkeeper.system.trust import OUR_FOLDER, OURS, Trust, UntrustedError, check

log = logging.getLogger("wattkeeper.web")

_VERSION = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}

_KEY = Trust(forbidden=0o027)
"""A key: its group, which is the agent's, may read it, and nobody else."""

_Seen = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class InForce:
    """A configuration with its certificates loaded. Compared by identity: another object is another state of files."""

    config: WebConfig
    context: ssl.SSLContext | None


PLAIN = InForce(WebConfig(), None)
"""Where there is no ``web_config``: nobody is asked for anything."""


class WebFile:
    """The file behind the port. ``alarm``: why the newest state of the files is not in force, if it is not."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises ``ConfigError`` with file and line where it cannot be used."""
        self._path = path
        self.alarm: str | None = None
        self._named: tuple[Path, ...] = ()
        self._seen: _Seen = ()
        self._now = self._read()

    def current(self) -> InForce:
        """What is in force, after a look at the files. Never raises."""
        if self._seen != _look((self._path, *self._named)):
            self._read_again()
        return self._now

    def _read_again(self) -> None:
        try:
            found = self._read()
            lost = self._now.config.guards - found.config.guards
            if lost:
                text = f"would take {' and '.join(sorted(lost))} from the port: restart the agent if that is meant"
                raise ConfigError((Problem(str(self._path), 0, "", text),))  # noqa: TRY301
        except ConfigError as error:
            self.alarm = f"metrics.web_config has changed and cannot be used, the old one stays in force: {error}"
            log.error("%s", self.alarm)
            return
        self.alarm = None
        self._now = found
        log.info("%s or a certificate has changed: read again", self._path)

    def _read(self) -> InForce:
        """The files as they are. What is looked at is noted before it is read: no change slips between."""
        self._seen = _look((self._path, *self._named))
        config = parse_web(self._path, read_text(self._path, OURS))
        self._named = _files(config)
        self._seen = (self._seen[0], *_look(self._named))
        if config.users:
            need_bcrypt(self._path)
        return InForce(config, None if config.tls is None else tls_context(self._path, config.tls))


def _files(config: WebConfig) -> tuple[Path, ...]:
    named = (config.tls.cert, config.tls.key, config.tls.client_ca) if config.tls else ()
    return tuple(file.path for file in named if file is not None)


def _look(paths: tuple[Path, ...]) -> _Seen:
    """What changes when a file does; None for one that cannot be seen."""
    seen: list[tuple[int, ...] | None] = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            seen.append(None)
        else:
            seen.append((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
    return tuple(seen)


def tls_context(file: Path, config: TlsConfig) -> ssl.SSLContext:
    """The server's side of TLS. Raises ``ConfigError`` with the line that names what cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSION[config.least], _VERSION[config.most]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if not config.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if config.ciphers:
        context.set_ciphers(":".join(config.ciphers))
    if config.curve:
        context.set_ecdh_curve(config.curve)
    for named, key in ((config.cert, "cert_file"), (config.key, "key_file"), (config.client_ca, "client_ca_file")):
        if named is not None:
            _must_be_ours(file, named, key)
    _load_certificate(context, file, config)
    if config.client_ca is not None:
        try:
            context.load_verify_locations(cafile=config.client_ca.path)
        except ssl.SSLError as error:
            text = f"{config.client_ca.path}: no certificates in PEM form ({error.reason or error})"
            _refuse(file, config.client_ca, "client_ca_file", text)
    context.verify_mode = _VERIFY[config.client_auth]
    return context


def _load_certificate(context: ssl.SSLContext, file: Path, config: TlsConfig) -> None:
    def encrypted() -> NoReturn:
        _refuse(file, config.key, "key_file", f"{config.key.path} is encrypted, and nobody is there to type")

    try:
        context.load_cert_chain(config.cert.path, config.key.path, password=encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            _refuse(file, config.key, "key_file", f"{config.key.path} is not the key of {config.cert.path}")
        text = f"{config.cert.path} and {config.key.path}: not a certificate and its key in PEM form"
        _refuse(file, config.cert, "cert_file", f"{text} ({error.reason or error})")


def _must_be_ours(file: Path, named: FileAt, key: str) -> None:
    """Links are followed, because that is how certificates are rotated; where they lie and lead nobody else writes."""
    try:
        check(named.path.parent, OUR_FOLDER)
        check(named.path.resolve(), _KEY if key == "key_file" else OURS)
    except UntrustedError as error:
        _refuse(file, named, key, str(error))
    except OSError as error:
        _refuse(file, named, key, f"{named.path} cannot be read: {error.strerror}")


def _refuse(file: Path, named: FileAt, key: str, text: str) -> NoReturn:
    raise ConfigError((Problem(str(file), named.line, f"tls_server_config.{key}", text),))
