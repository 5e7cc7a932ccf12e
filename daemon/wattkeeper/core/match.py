"""Does a ``when`` fit a job on a GPU? True, False, or None: not yet known.

Kleene's three-valued logic. A field that a look-up may still tell (``UNKNOWN``) makes its selector, and the ``not``
of it, unknown. A field that Slurm does not set (``None``) is absent: nothing fits it, so its selector is false and
the ``not`` of it true. Equally a job that is not there (an idle GPU) and a GPU that is not there have no fields.
A schedule is always true or false, at the time in the conditions; it is looked at last, where the rest leaves it open.
"""

import fnmatch
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from wattkeeper.core.filing import Filing, folded
from wattkeeper.core.schedule import Schedule
from wattkeeper.core.when import Compare, Glob, Hosts, Pattern, Selector, When
from wattkeeper.model import UNKNOWN, Conditions, GpuInfo, JobFacts, Unknown

_NOT_OF_JOBS = frozenset({"node", "gpu_model", "schedule"})
_OF_JOBS = {
    "user": "user",
    "group": "groups",
    "account": "account",
    "partition": "partition",
    "qos": "qos",
    "job_name": "job_name",
    "reservation": "reservation",
    "constraint": "constraint",
    "gpus": "gpus",
    "num_nodes": "num_nodes",
}
"""Fields of jobs, and what they are called in ``JobFacts``."""

_FEATURE = re.compile(r"[^\s&|,()\[\]]+")
_COUNT = re.compile(r"\*[0-9]*\Z")

_Value = str | int | frozenset[str] | None | Unknown


@dataclass(frozen=True, slots=True)
class Match:
    """``value`` None: not yet known, and ``pending`` names the unknown fields that it hinges on (else empty).

    ``schedules``: those that were looked at. Until one of them turns, the answer stands.
    """

    value: bool | None
    pending: frozenset[str] = frozenset()
    schedules: tuple[Schedule, ...] = ()


_TRUE = Match(True)
_FALSE = Match(False)


class Matcher:
    """Answers for one job on one GPU at one time. ``job`` None: a GPU that no job holds.

    Each selector is looked at once, however many rules share it (as one object: see ``Filing``). What it has matched
    must live as long as it does.
    """

    __slots__ = ("_conditions", "_gpu", "_job", "_seen")

    def __init__(self, job: JobFacts | None, gpu: GpuInfo | None, conditions: Conditions) -> None:
        self._job = job
        self._gpu = gpu
        self._conditions = conditions
        self._seen: dict[int, Match] = {}  # by the selector's id

    def match(self, when: When) -> Match:
        """Whether all selectors fit and the ``not`` part does not."""
        if len(when.selectors) == 1 and when.negated is None:
            return self._selector(when.selectors[0])
        return _all(self._parts(when))

    def may_fit(self, filing: Filing) -> list[int]:
        """The places of the ``when`` that the job may fit, in their order: all that fit or are open, and few others."""
        found = set(filing.always)
        for field, names in filing.fields.items():
            value = _field(field, self._job, self._gpu, self._conditions)
            if value is UNKNOWN:
                found.update(*names.all())
            elif value is not None:
                for one in _several(field, value):
                    found.update(*names.may_fit(one))
        return sorted(found)

    def _parts(self, when: When) -> Iterator[Match]:
        """Each selector's answer, then the ``not`` part's, then the schedules'."""
        for selector in when.selectors:
            if selector.field != "schedule":
                yield self._selector(selector)
        if when.negated is not None:
            yield _negate(self.match(when.negated))
        for selector in when.selectors:
            if selector.field == "schedule":
                yield self._selector(selector)

    def _selector(self, selector: Selector) -> Match:
        seen = self._seen.get(id(selector))
        if seen is not None:
            return seen
        if selector.field == "schedule":
            found = _match_time(selector, self._conditions)
        else:
            found = _match_selector(selector, self._job, self._gpu, self._conditions)
        self._seen[id(selector)] = found
        return found


def match(when: When, job: JobFacts | None, gpu: GpuInfo | None, conditions: Conditions) -> Match:
    """Whether all selectors fit and the ``not`` part does not. ``job`` None: a GPU that no job holds."""
    return Matcher(job, gpu, conditions).match(when)


def selects_jobs(when: When) -> bool:
    """True where deciding ``when`` looks at a field of jobs; a ceiling without one holds for idle GPUs too."""
    return bool(when.fields() - _NOT_OF_JOBS)


def fits_model(pattern: str, model: str) -> bool:
    """Whether a glob fits NVML's name of a GPU, in any case."""
    return fits_glob(pattern.lower(), model.lower())


def fits_glob(pattern: str, text: str) -> bool:
    """Whether a shell-style pattern fits the whole text; case matters."""
    return _compiled(pattern).match(text) is not None


def features(constraint: str) -> tuple[str, ...]:
    """The feature names in a constraint as ``sbatch --constraint`` takes it: ``[rack1*2&(a100|h100)]`` names three."""
    names = (_COUNT.sub("", word) for word in _FEATURE.findall(constraint))
    return tuple(name for name in names if name)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def _all(parts: Iterable[Match]) -> Match:
    pending: frozenset[str] = frozenset()
    schedules: tuple[Schedule, ...] = ()
    for part in parts:
        if part.value is False and not part.schedules:
            return _FALSE
        schedules += part.schedules
        if part.value is False:
            return Match(False, schedules=schedules)
        pending |= part.pending
    if pending:
        return Match(None, pending, schedules)
    return Match(True, schedules=schedules) if schedules else _TRUE


def _negate(found: Match) -> Match:
    return found if found.value is None else Match(not found.value, schedules=found.schedules)


def _match_time(selector: Selector, conditions: Conditions) -> Match:
    """Whether one of the schedules holds now. All of them are told: any may be the first to turn."""
    schedules = tuple(pattern for pattern in selector.patterns if isinstance(pattern, Schedule))
    return Match(any(s.active(conditions.now_at, conditions.zone) for s in schedules), schedules=schedules)


def _match_selector(selector: Selector, job: JobFacts | None, gpu: GpuInfo | None, conditions: Conditions) -> Match:
    value = _field(selector.field, job, gpu, conditions)
    if value is UNKNOWN:
        return _unknown(selector.field)
    if value is None:
        return _FALSE
    several = _several(selector.field, value)
    fits = any(_fits(selector.field, pattern, one) for pattern in selector.patterns for one in several)
    return _TRUE if fits else _FALSE


@lru_cache(maxsize=64)
def _unknown(field: str) -> Match:
    return Match(None, frozenset({field}))


def _field(name: str, job: JobFacts | None, gpu: GpuInfo | None, conditions: Conditions) -> _Value:
    """The value of a field; a name that no release has yet is not known."""
    if name == "gpu_model":
        return gpu.model if gpu else None
    if name == "node":
        return (job.node if job else "") or conditions.node or None
    if job is None:
        return None
    value: _Value = getattr(job, _OF_JOBS[name]) if name in _OF_JOBS else UNKNOWN
    return value


def _several(field: str, value: str | int | frozenset[str]) -> Iterable[str | int]:
    """The values of which any will do, as patterns take them: groups, and features of a constraint."""
    if isinstance(value, frozenset):
        return value
    if isinstance(value, int):
        return (value,)
    return features(value) if field == "constraint" else (folded(field, value),)


def _fits(field: str, pattern: Pattern, value: str | int) -> bool:
    match pattern:
        case Compare(op=op, number=number):
            return isinstance(value, int) and compare(op, value, number)
        case Hosts(names=names):
            return value in names
        case Schedule():
            return False  # fits times, and no value
        case Glob(pattern=glob):
            return fits_glob(folded(field, glob), str(value))


def compare(op: str, left: int, right: int) -> bool:
    """``left op right``."""
    match op:
        case "==":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case _:
            return left >= right
