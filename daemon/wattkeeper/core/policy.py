"""A site's policy as the code holds it: already validated, profiles resolved, each part knowing its line.

``config/`` makes these from YAML; ``match``, ``resolve`` and ``arbitrate`` read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from wattkeeper.core.filing import Filing
from wattkeeper.core.when import Compare as Compare
from wattkeeper.core.when import Glob as Glob
from wattkeeper.core.when import Hosts as Hosts
from wattkeeper.core.when import Pattern as Pattern
from wattkeeper.core.when import Selector as Selector
from wattkeeper.core.when import When as When
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
    filing: Filing = field(init=False, repr=False, compare=False)  # of the rules' whens
    terms: tuple[int, ...] = field(
        init=False, repr=False, compare=False
    )  # one for each rule: rules of one number cap alike
    _fields: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare what follows from the rest, so that no decision looks at each of thousands of rules."""
        object.__setattr__(self, "filing", Filing(rule.when for rule in self.rules))
        numbers: dict[object, int] = {}
        terms = tuple(numbers.setdefault(_terms(rule), len(numbers)) for rule in self.rules)
        object.__setattr__(self, "terms", terms)
        whens = {*self.filing.whens, *(ceiling.when for ceiling in self.ceilings)}
        object.__setattr__(self, "_fields", frozenset(name for when in whens for name in when.fields()))

    def fields(self) -> frozenset[str]:
        """Names of every field that some rule or ceiling looks at."""
        return self._fields


def _terms(rule: Rule) -> object:
    """All of a rule that its caps come from, whatever words and lines they were written in."""
    if rule.requests is None:
        return rule.cap.choices
    asked = rule.requests
    return rule.cap.choices, asked.min.choices, asked.max.choices, asked.outside
