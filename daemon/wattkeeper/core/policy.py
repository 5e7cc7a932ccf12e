"""A site's policy as the code holds it: already validated, profiles resolved, each part knowing its line.

``config/`` makes these from YAML; ``match``, ``resolve`` and ``arbitrate`` read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from wattkeeper.core.schedule import Schedule
from wattkeeper.model import Source
from wattkeeper.units import BasisPoints, Milliwatts


class Keyword(StrEnum):
    """Limits that every GPU has. ``default``, ``min`` and ``max`` are the device's."""

    BASELINE = "baseline"
    DEFAULT = "default"
    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Watts:
    """So many milliwatts per GPU."""

    limit_mw: Milliwatts


@dataclass(frozen=True, slots=True)
class Percent:
    """A share of the GPU's default limit."""

    points: BasisPoints


Amount = Watts | Percent | Keyword


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap as written (``text``), which may depend on the GPU: the first glob that fits NVML's name, any case, gives
    the amount; where none fits, the baseline. ``profile`` is the name it was written as, if it was one."""

    text: str
    choices: tuple[tuple[str, Amount], ...]
    source: Source | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class Glob:
    """Shell-style pattern for a name; case matters, as it does in Slurm."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """A hostlist, expanded: ``node[1-3,7]``."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Compare:
    """A comparison for a count: ``2``, ``>=2``."""

    op: Literal["==", "!=", "<", "<=", ">", ">="]
    number: int


Pattern = Glob | Hosts | Compare | Schedule


@dataclass(frozen=True, slots=True)
class Selector:
    """``field: patterns``: true where any of the patterns fits."""

    field: str
    patterns: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class When:
    """All selectors fit, and the ``not`` part, if there is one, does not fit as a whole. Empty: always true."""

    selectors: tuple[Selector, ...] = ()
    negated: "When | None" = None

    def fields(self) -> frozenset[str]:
        """Names of the fields that deciding this may need."""
        own = frozenset(s.field for s in self.selectors)
        return own | self.negated.fields() if self.negated else own

    def schedules(self) -> tuple[Schedule, ...]:
        """Every schedule in it, each once."""
        own = [p for s in self.selectors for p in s.patterns if isinstance(p, Schedule)]
        return tuple(dict.fromkeys((*own, *(self.negated.schedules() if self.negated else ()))))


@dataclass(frozen=True, slots=True)
class Requests:
    """What the owner of a job may ask for. ``outside``: what becomes of a request out of bounds."""

    min: Cap
    max: Cap
    outside: Literal["clamp", "deny"] = "clamp"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``caps``. Without ``requests`` every request is denied. ``observe``: decide, write nothing."""

    name: str
    when: When
    cap: Cap
    requests: Requests | None
    source: Source
    observe: bool = False


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A bound over every cap it matches; without selectors of jobs it holds for idle GPUs too.

    ``ramp_s``: for so long before its schedule begins, and after it ends, nodes take it on, and leave it, one after
    another.
    """

    name: str
    when: When
    cap: Cap
    source: Source
    ramp_s: int = 0


BASELINE_CAP = Cap(text="baseline", choices=(("*", Keyword.BASELINE),))


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the site's policy files say, in their order."""

    rules: tuple[Rule, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    idle: Cap = BASELINE_CAP
    shared_gpus: Literal["highest", "lowest"] = "highest"
    profiles: Mapping[str, Cap] = field(default_factory=dict)
    digest: str = ""  # of the files' bytes, for the metric policy_info

    def fields(self) -> frozenset[str]:
        """Names of every field that some rule or ceiling looks at."""
        whens = [rule.when for rule in self.rules] + [ceiling.when for ceiling in self.ceilings]
        return frozenset(name for when in whens for name in when.fields())
