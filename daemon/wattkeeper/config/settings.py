"""The agent's settings, ``/etc/wattkeeper/wattkeeper.yaml``: YAML in, ``Settings`` out, or every problem at once."""

import os
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import Literal, cast

from wattkeeper.config import settings_shape as forms
from wattkeeper.config.schedule import read_zone
from wattkeeper.config.shapes import Shape, Span, Words
from wattkeeper.config.walk import Walk, join, raise_if_any
from wattkeeper.config.yaml_lines import Items, Node, Null, Table, Text, parse, read_text
from wattkeeper.core.match import fits_model
from wattkeeper.core.policy import Watts
from wattkeeper.core.request import parse_amount
from wattkeeper.errors import Problem
from wattkeeper.model import GpuInfo, GpuUuid
from wattkeeper.system.trust import OURS, Trust
from wattkeeper.text import printable
from wattkeeper.units import Milliwatts

DEFAULT_PATH = Path("/etc/wattkeeper/wattkeeper.yaml")

GpuName = int | GpuUuid
"""A GPU as settings name it: its minor number or its UUID."""

SETTINGS_KEYS = forms.SETTINGS.names


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the metrics are served: a host name or address, and a TCP port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UnixListen:
    """Where the metrics are served, where that is a unix socket."""

    path: Path


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """``gpus``. ``include`` None: all of the node's. ``map``: GRES index to GPU, over whatever Slurm says.

    ``baseline`` as pairs: the first glob that fits NVML's name, any case, declares that model's baseline.
    """

    library: Path | None = None
    include: tuple[GpuName, ...] | None = None
    exclude: tuple[GpuName, ...] = ()
    map: tuple[tuple[int, GpuName], ...] | None = None
    baseline: Literal["found", "default"] | tuple[tuple[str, Milliwatts], ...] = "found"
    exceed_baseline: bool = False

    def declared_mw(self, info: GpuInfo) -> Milliwatts | None:
        """The baseline declared for this GPU; None: the one that was found counts."""
        if self.baseline == "found":
            return None
        if self.baseline == "default":
            return info.default_mw
        return next((mw for pattern, mw in self.baseline if fits_model(pattern, info.model)), None)


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """``metrics``. ``listen`` None closes the port; ``grace`` in seconds.

    ``job_labels`` None: ``full`` for whom ``web_config`` makes show a password or certificate, ``id`` for others.
    """

    listen: Listen | UnixListen | None = Listen("127.0.0.1", 9745)
    web_config: Path | None = None
    textfile: Path | None = None
    job_labels: Literal["full", "id", "none"] | None = None
    grace: float = 300.0


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """``slurm``. ``timeout`` in seconds, of a look-up; ``conf`` and ``bin_dir`` None: wherever Slurm's own are."""

    lookup: Literal["auto", "pyslurm", "scontrol", "off"] = "auto"
    conf: Path | None = None
    bin_dir: Path | None = None
    timeout: float = 2.0
    event_users: tuple[str, ...] = ("root",)
    strict: Literal["off", "fail"] = "off"


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """``ledger``. ``keep`` in seconds: how long jobs, sums of days and end-of-job records are kept."""

    keep: float = 400 * 86_400.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the settings file says. ``interval`` in seconds, of the agent's tick.

    ``time_zone``: in which the policy's schedules are meant that name none; None: the machine's.
    """

    mode: Literal["enforce", "observe"] = "enforce"
    node: str | None = None
    time_zone: tzinfo | None = None
    interval: float = 5.0
    run_dir: Path = Path("/run/wattkeeper")
    state_dir: Path = Path("/var/lib/wattkeeper")
    policies: Path = Path("/etc/wattkeeper/policies.d")
    gpus: GpuSettings = GpuSettings()
    metrics: MetricsSettings = MetricsSettings()
    slurm: SlurmSettings = SlurmSettings()
    ledger: LedgerSettings = LedgerSettings()
    drift: Literal["repair", "report", "yield"] = "repair"
    on_stop: Literal["restore-idle", "keep", "restore"] = "restore-idle"


_DEFAULTS = Settings()


def settings_file(config: Path | None = None) -> Path | None:
    """The settings to go by: those named, else ``WATTKEEPER_CONFIG``'s, else the installed ones; None: there are none.

    Only the installed ones may be missing: a file that somebody named is to be read, or its reader told why not.
    """
    named = config or os.environ.get("WATTKEEPER_CONFIG")
    if named:
        return Path(named)
    return DEFAULT_PATH if os.path.lexists(DEFAULT_PATH) else None


def settings_or_defaults(config: Path | None = None, trust: Trust = OURS) -> Settings:
    """What is in ``settings_file``, or the defaults where there is none. Raises as ``load_settings`` does."""
    path = settings_file(config)
    return load_settings(path, trust) if path else Settings()


def load_settings(path: Path, trust: Trust = OURS) -> Settings:
    """The settings in a file. Raises ``ConfigError`` with every problem, or where it cannot be read or trusted.

    ``trust``: whose the file must be, and who must not be able to change it.
    """
    return parse_settings(str(path), read_text(path, trust))


def parse_settings(file: str, text: str) -> Settings:
    """The settings that a text says; what it leaves out, or an empty text, has its default. No I/O.

    ``file`` is the name for messages. Raises ``ConfigError`` with every problem at once.
    """
    root, found = parse(file, text)
    problems: list[Problem] = list(found)
    settings = Settings() if root is None else _settings(_Section(Walk(file, problems), root, "", forms.SETTINGS))
    raise_if_any(problems)
    return settings


class _Section:
    """One mapping of the settings. Each reader gives the default where the key is missing or was noted as wrong."""

    def __init__(self, walk: Walk, node: Node, path: str, shape: Shape) -> None:
        self.walk = walk
        self.path = path
        self.known = {name: value for name, (_, value) in walk.table(node, path, shape.names).items()}

    def at(self, key: str) -> str:
        return join(self.path, key)

    def section(self, key: str, shape: Shape) -> "_Section":
        node = self.known.get(key, Table((), 0))
        return _Section(self.walk, node, self.at(key), shape)

    def is_null(self, key: str) -> bool:
        return isinstance(self.known.get(key), Null)

    def choice(self, key: str, allowed: Words, default: str) -> str:
        if key not in self.known:
            return default
        return self.walk.choice(self.known[key], self.at(key), allowed.words) or default

    def flag(self, key: str, *, default: bool) -> bool:
        found = self.walk.flag(self.known[key], self.at(key)) if key in self.known else None
        return default if found is None else found

    def duration(self, key: str, default: float, span: Span) -> float:
        if key not in self.known:
            return default
        found = self.walk.duration(self.known[key], self.at(key), *span.bounds)
        return default if found is None else found

    def path_or_none(self, key: str) -> Path | None:
        if key not in self.known or self.is_null(key):
            return None
        node = self.known[key]
        text = self.walk.text(node, self.at(key), "an absolute path")
        if text is None:
            return None
        if not text.startswith("/"):
            self.walk.error(node, self.at(key), f"'{printable(text, 60)}' is not an absolute path: begin it with /")
            return None
        return Path(text)

    def directory(self, key: str, default: Path) -> Path:
        if self.is_null(key):
            self.walk.error(self.known[key], self.at(key), "has no value", "an absolute path")
        return self.path_or_none(key) or default

    def word(self, node: Node, path: str) -> str | None:
        text = self.walk.text(node, path)
        if text is None or forms.WORD.fullmatch(text):
            return text
        self.walk.error(node, path, f"'{printable(text, 60)}' is not a name")
        return None


def _settings(top: _Section) -> Settings:
    return Settings(
        mode=cast("Literal['enforce', 'observe']", top.choice("mode", forms.MODE, "enforce")),
        node=None if "node" not in top.known or top.is_null("node") else top.word(top.known["node"], "node"),
        time_zone=_time_zone(top),
        interval=top.duration("interval", _DEFAULTS.interval, forms.INTERVAL),
        run_dir=top.directory("run_dir", _DEFAULTS.run_dir),
        state_dir=top.directory("state_dir", _DEFAULTS.state_dir),
        policies=top.directory("policies", _DEFAULTS.policies),
        gpus=_gpus(top.section("gpus", forms.GPUS)),
        metrics=_metrics(top.section("metrics", forms.METRICS)),
        slurm=_slurm(top.section("slurm", forms.SLURM)),
        ledger=_ledger(top.section("ledger", forms.LEDGER)),
        drift=cast("Literal['repair', 'report', 'yield']", top.choice("drift", forms.DRIFT, "repair")),
        on_stop=cast(
            "Literal['restore-idle', 'keep', 'restore']",
            top.choice("on_stop", forms.ON_STOP, "restore-idle"),
        ),
    )


def _time_zone(top: _Section) -> tzinfo | None:
    if "time_zone" not in top.known or top.is_null("time_zone"):
        return None
    return read_zone(top.walk, top.known["time_zone"], "time_zone")


def _gpus(section: _Section) -> GpuSettings:
    return GpuSettings(
        library=section.path_or_none("library"),
        include=None if section.is_null("include") else _gpu_names(section, "include"),
        exclude=_gpu_names(section, "exclude") or (),
        map=_map(section),
        baseline=_baseline(section),
        exceed_baseline=section.flag("exceed_baseline", default=False),
    )


def _metrics(section: _Section) -> MetricsSettings:
    unset = section.is_null("job_labels")
    labels = None if unset else section.choice("job_labels", forms.JOB_LABELS, "") or None
    return MetricsSettings(
        listen=_listen(section),
        web_config=section.path_or_none("web_config"),
        textfile=section.path_or_none("textfile"),
        job_labels=cast("Literal['full', 'id', 'none'] | None", labels),
        grace=section.duration("grace", _DEFAULTS.metrics.grace, forms.GRACE),
    )


def _slurm(section: _Section) -> SlurmSettings:
    lookup = section.choice("lookup", forms.LOOKUP, "auto")
    users: tuple[str, ...] = _DEFAULTS.slurm.event_users
    if "event_users" in section.known:
        path = section.at("event_users")
        texts = section.walk.one_or_more(section.known["event_users"], path)
        users = tuple(dict.fromkeys(name for text in texts if (name := section.word(text, path)) is not None))
    return SlurmSettings(
        lookup=cast("Literal['auto', 'pyslurm', 'scontrol', 'off']", lookup),
        conf=section.path_or_none("conf"),
        bin_dir=section.path_or_none("bin_dir"),
        timeout=section.duration("timeout", _DEFAULTS.slurm.timeout, forms.TIMEOUT),
        event_users=users,
        strict=cast("Literal['off', 'fail']", section.choice("strict", forms.STRICT, "off")),
    )


def _ledger(section: _Section) -> LedgerSettings:
    return LedgerSettings(keep=section.duration("keep", _DEFAULTS.ledger.keep, forms.KEEP))


def _listen(section: _Section) -> Listen | UnixListen | None:
    default = _DEFAULTS.metrics.listen
    if "listen" not in section.known:
        return default
    node, path, allowed = section.known["listen"], section.at("listen"), forms.ADDRESS.allowed
    if isinstance(node, Null):
        return None
    text = section.walk.text(node, path, allowed)
    found = forms.LISTEN.fullmatch(text) if text is not None else None
    if text is None:
        return default
    if text.startswith("unix:"):
        where = Path(text.removeprefix("unix:"))
        if where.is_absolute() and len(str(where).encode()) <= forms.SOCKET_PATH:
            return UnixListen(where)
        too = f"is not an absolute path of at most {forms.SOCKET_PATH} bytes"
        section.walk.error(node, path, f"'{printable(text, 60)}' {too}", allowed)
        return default
    if found is None or not int(found["port"]) <= 65_535:
        section.walk.error(node, path, f"'{printable(text, 60)}' is not host:port", allowed)
        return default
    host = found["six"] or found["host"]
    if not host:
        section.walk.error(node, path, f"'{printable(text, 60)}' names no host: 0.0.0.0 is every address", allowed)
        return default
    return Listen(host, int(found["port"]))


def _gpu_names(section: _Section, key: str) -> tuple[GpuName, ...] | None:
    """A list of GPUs, which may be empty; None where the key is missing."""
    if key not in section.known:
        return None
    node, path = section.known[key], section.at(key)
    if isinstance(node, Items) and not node.items:
        return ()
    names = [_gpu_name(section.walk, text, path) for text in section.walk.one_or_more(node, path)]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _gpu_name(walk: Walk, node: Node, path: str) -> GpuName | None:
    text = walk.text(node, path, forms.GPU.allowed)
    if text is None:
        return None
    if forms.MINOR.fullmatch(text):
        return int(text)
    if forms.UUID.fullmatch(text):
        return GpuUuid(text)
    walk.error(node, path, f"'{printable(text, 60)}' names no GPU", forms.GPU.allowed)
    return None


def _map(section: _Section) -> tuple[tuple[int, GpuName], ...] | None:
    """``{0: 4, 1: GPU-…}``, or a list in the order of GRES indices."""
    if "map" not in section.known or section.is_null("map"):
        return None
    node, path, walk = section.known["map"], section.at("map"), section.walk
    pairs: list[tuple[int, GpuName]] = []
    if not isinstance(node, Table):
        for at, item in enumerate(walk.items(node, path)):
            name = _gpu_name(walk, item, f"{path}[{at}]")
            pairs += [] if name is None else [(at, name)]
    else:
        for key, value in node.entries:
            if not forms.GRES_INDEX.fullmatch(key.value):
                walk.error(key, path, f"'{printable(key.value, 60)}' is not a GRES index", "0, 1, 2 …")
                continue
            name = _gpu_name(walk, value, f"{path}.{key.value}")
            pairs += [] if name is None else [(int(key.value), name)]
    if len({name for _, name in pairs}) < len(pairs):
        walk.error(node, path, "names one GPU twice")
    return tuple(pairs)


def _baseline(section: _Section) -> Literal["found", "default"] | tuple[tuple[str, Milliwatts], ...]:
    if "baseline" not in section.known:
        return "found"
    node, path, walk = section.known["baseline"], section.at("baseline"), section.walk
    if not isinstance(node, Table):
        text = walk.text(node, path, 'found, default, {"*A100*": 400W}')
        if text is not None and text not in forms.BASELINE.words:
            walk.error(node, path, f"'{printable(text, 60)}' is unknown", 'found, default, {"*A100*": 400W}')
        return "default" if text == "default" else "found"
    return tuple(pair for key, value in node.entries if (pair := _declared(walk, key, value, path)) is not None)


def _declared(walk: Walk, key: Text, value: Node, path: str) -> tuple[str, Milliwatts] | None:
    here = join(path, printable(key.value, 60))
    text = walk.text(value, here, "watts, such as 400W")
    amount = None if text is None else parse_amount(text)
    if text is not None and not isinstance(amount, Watts):
        walk.error(value, here, f"'{printable(text, 60)}' is not a number of watts", "400W, 0.4kW")
    return (key.value, amount.limit_mw) if isinstance(amount, Watts) else None
