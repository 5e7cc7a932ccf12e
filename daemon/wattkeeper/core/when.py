"""``when``: which jobs, nodes, GPUs and times a rule or ceiling is for, as the code holds it."""

from dataclasses import dataclass
from typing import Literal

from wattkeeper.core.schedule import Schedule


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
