"""A site's policy files: YAML in, ``core.policy.Policy`` out, or every problem at once."""

import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

from wattkeeper.config.caps import read_cap, read_profile
from wattkeeper.config.checks import errors_of, warnings_of
from wattkeeper.config.policy_shape import (
    CEILING,
    IDLE,
    MODE,
    NAME,
    OUTSIDE,
    PART_NAME,
    POLICY,
    PROFILE_ENTRY,
    RAMP,
    REQUESTS,
    RULE,
    SHARED_GPUS,
    VERSION,
)
from wattkeeper.config.shapes import Shape
from wattkeeper.config.walk import Walk, join, raise_if_any
from wattkeeper.config.when import read_when
from wattkeeper.config.yaml_lines import Items, Node, Table, Text, parse, read_text
from wattkeeper.core.policy import BASELINE_CAP, Cap, Ceiling, Policy, Requests, Rule, When
from wattkeeper.core.request import is_profile_name
from wattkeeper.errors import ConfigError, Problem
from wattkeeper.model import Source
from wattkeeper.system.trust import OURS, Kind, Trust, UntrustedError, check
from wattkeeper.text import printable

POLICY_KEYS = POLICY.names

RAMP_S = 600
"""How long the ramp of a ceiling with a schedule is where the policy does not say."""

_WRONG = Cap(text="", choices=())
"""Stands in for a cap in which something is wrong, which has been noted. It compares with nothing."""


def load_policies(path: Path, trust: Trust = OURS) -> tuple[Policy, tuple[Problem, ...]]:
    """The policy in a file, or in a folder's ``*.yaml`` and ``*.yml`` in the order of their names, and its warnings.

    Files whose names begin with a dot are left out. ``trust``: whose the files and the folder must be, and who must not
    be able to change them. Raises ``ConfigError`` with every problem of every file.
    """
    files: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for file in policy_files(path, trust):
        try:
            files.append((str(file), read_text(file, trust)))
        except ConfigError as error:
            problems += error.problems
    try:
        policy, warnings = parse_policies(files)
    except ConfigError as error:
        raise ConfigError((*problems, *error.problems)) from error
    raise_if_any(problems)
    return policy, warnings


def policy_files(path: Path, trust: Trust = OURS) -> list[Path]:
    """The files that ``load_policies`` reads.

    Raises ``ConfigError`` where a folder cannot be read or trusted, or holds none.
    """
    try:
        if not path.is_dir():
            return [path]
        check(path, replace(trust, kind=Kind.FOLDER))
        names = sorted(p.name for p in path.iterdir() if p.suffix in {".yaml", ".yml"} and not p.name.startswith("."))
    except UntrustedError as error:
        raise ConfigError((Problem(str(path), 0, "", error.text),)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError((Problem(str(path), 0, "", f"cannot be read: {reason}"),)) from error
    if not names:
        text = "the folder holds no *.yaml file: put a policy there (wattkeeper ships policies/default.yaml)"
        raise ConfigError((Problem(str(path), 0, "", text),))
    return [path / name for name in names]


def parse_policies(files: Sequence[tuple[str, str]]) -> tuple[Policy, tuple[Problem, ...]]:
    """The policy that texts say together, and its warnings. ``files``: pairs of a name for messages and the text.

    Profiles are merged; caps and ceilings are concatenated in the order of the files. Raises ``ConfigError`` with
    every problem of every file at once. No I/O.
    """
    with _no_collection():
        return _parse_policies(files)


def _parse_policies(files: Sequence[tuple[str, str]]) -> tuple[Policy, tuple[Problem, ...]]:
    reader = _Reader()
    sections = [found for name, text in files if (found := reader.open(name, text)) is not None]
    for walk, known in sections:
        reader.read_profiles(walk, known)
    for walk, known in sections:
        reader.read_rest(walk, known)
    policy = reader.policy(_digest(files))
    reader.problems += errors_of(policy, lambda part: id(part) not in reader.broken)
    raise_if_any(reader.problems)
    return policy, tuple(warnings_of(policy))


@contextmanager
def _no_collection() -> Iterator[None]:
    """No search for cycles while a policy is read: it makes none, and to walk all of it again and again takes half
    as long as reading it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _digest(files: Sequence[tuple[str, str]]) -> str:
    """Twelve hexadecimal digits that tell one policy's texts from another's."""
    whole = hashlib.sha256()
    for _, text in files:
        data = text.encode(errors="surrogatepass")
        whole.update(b"%d:" % len(data) + data)
    return whole.hexdigest()[:12]


_Known = dict[str, tuple[Text, Node]]


@dataclass(slots=True)
class _Reader:
    """What has been read so far, of all files."""

    problems: list[Problem] = field(default_factory=list)
    profiles: dict[str, Cap] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)
    idle: tuple[Cap | None, Source] | None = None
    shared: tuple[str | None, Source] | None = None
    broken: set[int] = field(default_factory=set)  # id() of parts in which something was wrong: not checked further
    names: dict[tuple[str, str], Source] = field(default_factory=dict)

    def open(self, file: str, text: str) -> tuple[Walk, _Known] | None:
        """The top level of one file."""
        walk = Walk(file, self.problems)
        try:
            root, problems = parse(file, text)
        except ConfigError as error:
            self.problems += error.problems
            return None
        self.problems += problems
        if root is None:
            self.problems.append(Problem(file, 1, "", "the file is empty (needed at least: version: 1)"))
            return None
        known = walk.table(root, "", POLICY.names, POLICY.required)
        if "version" in known:
            walk.choice(known["version"][1], "version", VERSION.words)
        return walk, known

    def read_profiles(self, walk: Walk, known: _Known) -> None:
        """``profiles``: names for caps."""
        if "profiles" not in known:
            return
        node = known["profiles"][1]
        if not isinstance(node, Table):
            walk.error(node, "profiles", "must be a mapping of names to {cap: …}")
            return
        for key, value in node.entries:
            path = f"profiles.{printable(key.value, 60)}"
            if not is_profile_name(key.value):
                text = "cannot be a profile's name: a letter or _, then letters, digits, _ . -, at most 64"
                walk.error(key, path, text + "; not baseline, default, min or max")
            if not self._unique(walk, key, "profile", key.value, path):
                continue
            entry = walk.table(value, path, PROFILE_ENTRY.names, PROFILE_ENTRY.required)
            cap = read_profile(walk, entry["cap"][1], join(path, "cap")) if "cap" in entry else None
            self.profiles[key.value] = cap or _WRONG

    def read_rest(self, walk: Walk, known: _Known) -> None:
        """Everything else, now that all profiles are known."""
        for section, shape, make in (("caps", RULE, self._rule), ("ceilings", CEILING, self._ceiling)):
            if section in known:
                self._entries(walk, known[section][1], section, shape, make)
        if "idle" in known:
            key, value = known["idle"]
            entry = walk.table(value, "idle", IDLE.names, IDLE.required)
            cap = read_cap(walk, entry["cap"][1], "idle.cap", self.profiles) if "cap" in entry else None
            self._once(walk, key, "idle", self.idle)
            self.idle = (cap, Source(walk.file, key.line))
        if "shared_gpus" in known:
            key, value = known["shared_gpus"]
            choice = walk.choice(value, "shared_gpus", SHARED_GPUS.words)
            self._once(walk, key, "shared_gpus", self.shared)
            self.shared = (choice, Source(walk.file, key.line))

    def policy(self, digest: str) -> Policy:
        """What was read, as far as it could be."""
        return Policy(
            rules=tuple(self.rules),
            ceilings=tuple(self.ceilings),
            idle=(self.idle and self.idle[0]) or BASELINE_CAP,
            shared_gpus=cast("Literal['highest', 'lowest']", (self.shared and self.shared[0]) or "highest"),
            profiles=dict(self.profiles),
            digest=digest,
        )

    def _entries(
        self, walk: Walk, node: Node, section: str, shape: Shape, make: "Callable[[_Entry], Rule | Ceiling]"
    ) -> None:
        """The entries of ``caps`` or ``ceilings``."""
        if isinstance(node, Items) and not node.items:
            return  # `caps: []` says that there are none
        for at, item in enumerate(walk.items(node, section), start=1):
            before = len(self.problems)
            path = f"{section}[#{at}]"
            named = item.entries if isinstance(item, Table) else ()
            name = next((v.value for k, v in named if k.value == "name" and isinstance(v, Text)), None)
            if name is not None and NAME.fullmatch(name):
                path = f"{section}[{name}]"
            known = walk.table(item, path, shape.names, shape.required)
            part = make(_Entry(walk, item, path, self._name(walk, known, section, path), known))
            if len(self.problems) > before:
                self.broken.add(id(part))

    def _name(self, walk: Walk, known: _Known, section: str, path: str) -> str:
        if "name" not in known:
            return ""
        node = known["name"][1]
        text = walk.text(node, join(path, "name"))
        if text is None:
            return ""
        if not NAME.fullmatch(text):
            walk.error(node, join(path, "name"), f"'{printable(text, 80)}' cannot be a name", PART_NAME.allowed)
        self._unique(walk, node, section, text, join(path, "name"))
        return text

    def _rule(self, entry: "_Entry") -> Rule:
        walk, path, known = entry.walk, entry.path, entry.known
        mode = walk.choice(known["mode"][1], join(path, "mode"), MODE.words) if "mode" in known else None
        rule = Rule(
            name=entry.name,
            when=entry.when(),
            cap=entry.cap("cap", self.profiles),
            requests=self._requests(entry) if "requests" in known else None,
            source=Source(walk.file, entry.node.line),
            observe=mode == "observe",
        )
        self.rules.append(rule)
        return rule

    def _requests(self, entry: "_Entry") -> Requests:
        path = join(entry.path, "requests")
        node = entry.known["requests"][1]
        known = entry.walk.table(node, path, REQUESTS.names, REQUESTS.required)
        inner = _Entry(entry.walk, node, path, "", known)
        outside = entry.walk.choice(known["outside"][1], f"{path}.outside", OUTSIDE.words) if "outside" in known else ""
        return Requests(
            min=inner.cap("min", self.profiles),
            max=inner.cap("max", self.profiles),
            outside="deny" if outside == "deny" else "clamp",
        )

    def _ceiling(self, entry: "_Entry") -> Ceiling:
        source = Source(entry.walk.file, entry.node.line)
        when = entry.when()
        ceiling = Ceiling(entry.name, when, entry.cap("cap", self.profiles), source, _ramp(entry, when))
        self.ceilings.append(ceiling)
        return ceiling

    def _unique(self, walk: Walk, node: Node, kind: str, name: str, path: str) -> bool:
        first = self.names.setdefault((kind, name), Source(walk.file, node.line))
        if first == Source(walk.file, node.line):
            return True
        walk.error(node, path, f"the name '{printable(name, 80)}' is taken by {first}")
        return False

    def _once(self, walk: Walk, node: Node, name: str, before: "tuple[object, Source] | None") -> None:
        if before is not None:
            walk.error(node, name, f"is already given in {before[1]}: once over all files")


def _ramp(entry: "_Entry", when: When) -> int:
    """A ceiling's ramp in seconds: ``RAMP_S`` where it has a schedule and says nothing else."""
    scheduled = "schedule" in when.fields()
    if "ramp" not in entry.known:
        return RAMP_S if scheduled else 0
    key, node = entry.known["ramp"]
    path = join(entry.path, "ramp")
    if isinstance(node, Text) and node.value.strip() == "0":
        return 0
    seconds = entry.walk.duration(node, path, *RAMP.bounds)
    if seconds and not ("when" in entry.known and _mentions(entry.known["when"][1], "schedule")):
        entry.walk.error(key, path, "there is no schedule in `when` for it to go by: leave it out")
    return int(seconds or 0)


def _mentions(node: Node, key: str) -> bool:
    """Whether a mapping has that key, or one within it."""
    return isinstance(node, Table) and any(k.value == key or _mentions(value, key) for k, value in node.entries)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One mapping under ``caps`` or ``ceilings`` while it is read."""

    walk: Walk
    node: Node
    path: str
    name: str
    known: _Known

    def when(self) -> When:
        """Its ``when``; none given fits always."""
        if "when" not in self.known:
            return When()
        return read_when(self.walk, self.known["when"][1], join(self.path, "when"))

    def cap(self, key: str, profiles: Mapping[str, Cap]) -> Cap:
        """The cap under a key."""
        if key not in self.known:
            return _WRONG
        return read_cap(self.walk, self.known[key][1], join(self.path, key), profiles) or _WRONG
