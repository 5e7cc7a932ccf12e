"""Reading a file of models: the format of ``models.yaml``, strict, and every mistake in it at once with its line."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from wattkeeper.config.walk import Walk, raise_if_any
from wattkeeper.config.yaml_lines import Node, Null, Table, Text, parse, read_text
from wattkeeper.simulator.models import (
    ARCHITECTURES,
    BRANDS,
    LACKS,
    MAX_KEY_BYTES,
    MAX_NAME_BYTES,
    NOTHING,
    Lack,
    Model,
)
from wattkeeper.text import printable
from wattkeeper.units import parse_percent, parse_power


def read_models(path: Path) -> tuple[Model, ...]:
    """The models of a file, in its order. Raises ``ConfigError`` with every mistake at once."""
    root, problems = parse(str(path), read_text(path))
    walk = Walk(str(path), list(problems))
    top = walk.table(root or Null(1), "", ("sources", "models"), ("models",))
    sources = _sources(walk, top["sources"][1]) if "sources" in top else frozenset()
    found: list[Model | None] = []
    if "models" in top:
        body = top["models"][1]
        entries = body.entries if isinstance(body, Table) else ()
        if not entries:
            walk.error(body, "models", "must be a mapping of models by their keys")
        names: dict[str, int] = {}
        found = [_Reader(walk, key, sources, names).model(value) for key, value in entries]
    raise_if_any(walk.problems)
    return tuple(model for model in found if model is not None)


_NUMBER = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?) ?(?P<unit>[A-Za-z°/]*)")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_PCI = re.compile(r"(?P<vendor>[0-9a-f]{4}):(?P<device>[0-9a-f]{4})", re.IGNORECASE | re.ASCII)
_COMPUTE = re.compile(r"(?P<major>[0-9]{1,3})\.(?P<minor>[0-9]{1,2})", re.ASCII)
_ESTIMATE = re.compile(r"estimate \(.+\)")
_MAX_MW = 100_000_000


@dataclass(frozen=True, slots=True)
class _Unit:
    """How a figure is written, and what of it is held; None where it is not written so."""

    allowed: str
    parse: Callable[[str], int | None]


def _measure(allowed: str, least: int, most: int, **scales: int) -> _Unit:
    """Numbers with one of some units, in whole multiples of what is held (a unit ``CW`` is written ``C/W``)."""

    def parse(text: str) -> int | None:
        found = _NUMBER.fullmatch(text.strip())
        unit = found["unit"].replace("/", "").replace("°", "") if found else ""
        if found is None or unit not in scales:
            return None
        exact = Decimal(found["number"]) * scales[unit]
        return int(exact) if exact == int(exact) and least <= exact <= most else None

    return _Unit(allowed, parse)


def _power(text: str) -> int | None:
    power = parse_power(text)
    return None if power is None or power > _MAX_MW else power


def _share(text: str) -> int | None:
    share = parse_percent(text)
    return None if share is None or share > 10_000 else share


def _multiple(text: str, of_ms: int, most_ms: int) -> int | None:
    """A time on the grid of the simulator's past, which reaches back so far and no further."""
    duration = _WITHIN_A_SECOND.parse(text)
    return None if duration is None or duration % of_ms or duration > most_ms else duration


def _pci(text: str) -> int | None:
    found = _PCI.fullmatch(text)
    return int(found["device"] + found["vendor"], 16) if found else None


_POWER = _Unit("a power such as 300W, at most 100kW", _power)
_SHARE = _Unit("a share such as 88.5%, above 0% and at most 100%", _share)
_CLOCK = _measure("a clock such as 1410MHz", 1, 100_000, MHz=1, GHz=1_000)
_MEMORY = _measure("a size such as 81920MiB or 80GiB", 1, 1 << 30, MiB=1, GiB=1 << 10)
_TEMPERATURE = _measure("whole degrees Celsius such as 90C, at most 150C", 1, 150, C=1)
_AMBIENT = _measure("degrees Celsius such as 25C, at most 100C", 0, 100_000, C=1_000)
_RESISTANCE = _measure("degrees Celsius a watt such as 0.11C/W, at most 10C/W", 1, 10_000_000, CW=1_000_000)
_CONSTANT = _measure("a time such as 30s, 20ms to 3600s", 20, 3_600_000, ms=1, s=1_000)
_WITHIN_A_SECOND = _measure("", 0, 1_000, ms=1, s=1_000)
_WINDOW = _Unit("a multiple of 5ms, at most 1s", lambda text: _multiple(text, 5, 1_000))
_UPDATE = _Unit("a multiple of 20ms, at most 100ms", lambda text: _multiple(text, 20, 100))
_SLICES = _Unit("0 to 7", lambda text: int(text) if re.fullmatch(r"[0-7]", text, re.ASCII) else None)
_PCI_ID = _Unit("vendor and device as lspci -n shows them, such as 10de:2330", _pci)

_FIGURES: Mapping[str, Mapping[str, tuple[str, _Unit]]] = {
    "board": {
        "pci": ("pci_id", _PCI_ID),
        "memory": ("memory_mib", _MEMORY),
        "mig_slices": ("mig_slices", _SLICES),
    },
    "limit": {"default": ("default_mw", _POWER), "min": ("min_mw", _POWER), "max": ("max_mw", _POWER)},
    "module": {
        "default": ("module_default_mw", _POWER),
        "min": ("module_min_mw", _POWER),
        "max": ("module_max_mw", _POWER),
        "companion": ("companion_mw", _POWER),
    },
    "power": {
        "idle": ("idle_mw", _POWER),
        "static": ("static_mw", _POWER),
        "peak": ("peak_mw", _POWER),
        "voltage_floor": ("voltage_floor_bp", _SHARE),
        "overshoot": ("overshoot_bp", _SHARE),
    },
    "clocks": {
        "sm": ("sm_clock_mhz", _CLOCK),
        "lowest": ("min_clock_mhz", _CLOCK),
        "memory": ("memory_clock_mhz", _CLOCK),
    },
    "cooling": {
        "ambient": ("ambient_mc", _AMBIENT),
        "resistance": ("resistance_uc", _RESISTANCE),
        "time_constant": ("thermal_ms", _CONSTANT),
        "slowdown": ("slowdown_c", _TEMPERATURE),
        "shutdown": ("shutdown_c", _TEMPERATURE),
    },
    "sensors": {
        "power_update": ("power_update_ms", _UPDATE),
        "power_window": ("power_window_ms", _WINDOW),
        "instant_window": ("instant_window_ms", _WINDOW),
        "average_window": ("average_window_ms", _WINDOW),
        "energy_update": ("energy_update_ms", _UPDATE),
    },
}
_WORDS = ("name", "architecture", "compute", "brand", "lacks")
_OPTIONAL = frozenset(
    {"module", "lacks", "mig_slices", "overshoot", "power_window", "instant_window", "average_window"}
)
_ORDER = (
    ("min_mw", "default_mw"),
    ("default_mw", "max_mw"),
    ("module_min_mw", "module_default_mw"),
    ("module_default_mw", "module_max_mw"),
    ("companion_mw", "module_default_mw"),
    ("idle_mw", "static_mw"),
    ("static_mw", "peak_mw"),
    ("min_clock_mhz", "sm_clock_mhz"),
    ("slowdown_c", "shutdown_c"),
)


def _sources(walk: Walk, node: Node) -> frozenset[str]:
    """The ids of the ``sources`` table, each with its title, author and, where there is one, address."""
    if not isinstance(node, Table):
        walk.error(node, "sources", "must be a mapping of sources by their ids")
        return frozenset()
    for key, value in node.entries:
        path = f"sources[{printable(key.value, 40)}]"
        for part, (_, text) in walk.table(value, path, ("title", "by", "at"), ("title", "by")).items():
            walk.text(text, f"{path}.{part}")
    return frozenset(key.value for key, _ in node.entries)


class _Reader:
    """Reads one model, and notes what is wrong with it. ``names`` are those taken so far in the file."""

    def __init__(self, walk: Walk, key: Text, sources: frozenset[str], names: dict[str, int]) -> None:
        self._walk = walk
        self._key = key
        self._path = f"models[{printable(key.value, 40)}]"
        self._sources = sources
        self._names = names
        self._numbers: dict[str, int] = {}
        self._written: dict[str, tuple[str, Text]] = {}

    def model(self, node: Node) -> Model | None:
        """The model, or None where something is wrong with it."""
        before = len(self._walk.problems)
        self._take_name(self._key, self._path)
        groups = self._walk.table(
            node, self._path, ("aliases", *_FIGURES), [group for group in _FIGURES if group not in _OPTIONAL]
        )
        aliases: tuple[Text, ...] = ()
        if "aliases" in groups:
            path = f"{self._path}.aliases"
            aliases = self._walk.one_or_more(groups["aliases"][1], path)
            for alias in aliases:
                self._take_name(alias, path)
        name, lacks = "", NOTHING
        for group in _FIGURES:
            if group in groups:
                parts = self._group(group, groups[group][1])
                if group == "board":
                    name, lacks = self._board(parts)
        self._check_order()
        if len(self._walk.problems) > before:
            return None
        names = tuple(alias.value for alias in aliases)
        return Model(key=self._key.value, name=name, lacks=lacks, aliases=names, **self._numbers)

    def _take_name(self, text: Text, path: str) -> None:
        """A key or alias: what ``--model`` takes, so without the marks of a selection."""
        if len(text.value) > MAX_KEY_BYTES or not _KEY.fullmatch(text.value):
            said = f"'{printable(text.value, 60)}' cannot be a model's key"
            self._walk.error(text, path, said, f"1 to {MAX_KEY_BYTES} of A-Z a-z 0-9 . _ -, a letter or digit first")
            return
        name = text.value.lower()
        if name in self._names:
            self._walk.error(text, path, f"'{text.value}' is taken (on line {self._names[name]})")
        self._names.setdefault(name, text.line)

    def _group(self, group: str, node: Node) -> dict[str, tuple[Text, Node]]:
        """Takes a group's figures, and gives all of its parts back."""
        path = f"{self._path}.{group}"
        figures = _FIGURES[group]
        known = (*(_WORDS if group == "board" else ()), *figures)
        needed = [part for part in known if part not in _OPTIONAL]
        parts = self._walk.table(node, path, (*known, "source"), needed)
        for figure, (field, unit) in figures.items():
            if figure in parts:
                self._figure(f"{path}.{figure}", parts[figure][1], field, unit)
        if "source" in parts:
            self._check_source(f"{path}.source", parts["source"][1], known)
        return parts

    def _figure(self, path: str, node: Node, field: str, unit: _Unit) -> None:
        if self._walk.text(node, path, unit.allowed) is None or not isinstance(node, Text):
            return
        number = unit.parse(node.value)
        if number is None:
            self._walk.error(node, path, f"'{printable(node.value, 60)}' is not possible", unit.allowed)
        else:
            self._numbers[field] = number
            self._written[field] = (path, node)

    def _board(self, parts: Mapping[str, tuple[Text, Node]]) -> tuple[str, Lack]:
        """NVML's name and what is lacking; architecture, compute capability and brand become numbers."""
        walk, path = self._walk, f"{self._path}.board"
        nodes = {part: node for part, (_, node) in parts.items()}
        name = walk.text(nodes["name"], f"{path}.name") if "name" in nodes else None
        if name is not None and (len(name.encode()) > MAX_NAME_BYTES or printable(name) != name):
            walk.error(nodes["name"], f"{path}.name", "is not possible", f"1 to {MAX_NAME_BYTES} bytes, none invisible")
        for part, words in (("architecture", ARCHITECTURES), ("brand", BRANDS)):
            if part in nodes and (word := walk.choice(nodes[part], f"{path}.{part}", words)) is not None:
                self._numbers[part] = words[word]
        allowed = "major and minor, such as 9.0"
        if "compute" in nodes and (text := walk.text(nodes["compute"], f"{path}.compute", allowed)) is not None:
            found = _COMPUTE.fullmatch(text)
            if found is None:
                walk.error(nodes["compute"], f"{path}.compute", f"'{printable(text, 60)}' is not possible", allowed)
            else:
                self._numbers |= {"compute_major": int(found["major"]), "compute_minor": int(found["minor"])}
        lacks = NOTHING
        for node in walk.one_or_more(nodes["lacks"], f"{path}.lacks") if "lacks" in nodes else ():
            word = walk.choice(node, f"{path}.lacks", LACKS)
            lacks |= LACKS[word] if word is not None else NOTHING
        return name or "", lacks

    def _check_order(self) -> None:
        for smaller, greater in _ORDER:
            if self._numbers.get(smaller, 0) > self._numbers.get(greater, 1 << 32):
                path, node = self._written[smaller]
                other, bound = self._written[greater]
                self._walk.error(node, path, f"{node.value} is more than '{other.rpartition('.')[2]}', {bound.value}")

    def _check_source(self, path: str, node: Node, figures: tuple[str, ...]) -> None:
        """One source for all figures of a group, or one for each, with ``rest`` for those not named."""
        if isinstance(node, Table):
            table = self._walk.table(node, path, (*figures, "rest"))
            texts = [(f"{path}.{figure}", value) for figure, (_, value) in table.items()]
        else:
            texts = [(path, node)]
        for where, value in texts:
            text = self._walk.text(value, where)
            for source in _ids(text or ""):
                if source not in self._sources:
                    known = ", ".join((*sorted(self._sources), "estimate (why)"))
                    self._walk.error(value, where, f"no source '{printable(source, 40)}'", known)


def _ids(text: str) -> Iterator[str]:
    """The ids in ``nvml, smi-h100``; none in ``estimate (why)``."""
    if text and not _ESTIMATE.fullmatch(text):
        yield from (part.strip() for part in text.split(","))
