"""Certificates for tests, made by `openssl`: an authority, and what it vouches for."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import environment, run

OPENSSL = shutil.which("openssl")
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM form."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; `folder` gets all files."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        self._openssl("-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign", pair=self.pair)

    @property
    def cert(self) -> Path:
        return self.pair.cert

    def issue(self, name: str, *, sans: str = "IP:127.0.0.1,DNS:localhost") -> Pair:
        """A certificate for servers and clients of those names."""
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        signer = ("-CA", str(self.pair.cert), "-CAkey", str(self.pair.key))
        names = ("-addext", f"subjectAltName={sans}", "-addext", "basicConstraints=critical,CA:FALSE")
        self._openssl("-subj", f"/CN={name}", *signer, *names, pair=pair)
        return pair

    def _openssl(self, *words: str, pair: Pair) -> None:
        argv = ["openssl", "req", "-x509", *_KEY, "-keyout", str(pair.key), "-out", str(pair.cert), *words]
        run(argv, environment(self.folder))
