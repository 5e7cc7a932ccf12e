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

from wattkeeper.core.policy import Compare, Glob, Hosts, Pattern, Selector, When
from wattkeeper.core.schedule import Schedule
from wattkeeper.model import UNKNOWN, Conditions, GpuInfo, JobFacts, Unknown

_NOT_OF_JOBS = frozenset({"node", "gpu_model", "schedule"})
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


def match(when: When, job: JobFacts | None, gpu: GpuInfo | None, conditions: Conditions) -> Match:
    """Whether all selectors fit and the ``not`` part does not. ``job`` None: a GPU that no job holds."""
    return _all(_parts(when, job, gpu, conditions))


def _parts(when: When, job: JobFacts | None, gpu: GpuInfo | None, conditions: Conditions) -> Iterator[Match]:
    """Each selector's answer, then the ``not`` part's, then the schedules'."""
    for selector in when.selectors:
        if selector.field != "schedule":
            yield _match_selector(selector, job, gpu, conditions)
    if when.negated is not None:
        yield _negate(match(when.negated, job, gpu, conditions))
    for selector in when.selectors:
        if selector.field == "schedule":
            yield _match_time(selector, conditions)


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
        return Match(None, frozenset({selector.field}))
    if value is None:
        return _FALSE
    several = value if isinstance(value, frozenset) else (value,)  # of groups any will do
    fits = any(_fits(selector.field, pattern, one) for pattern in selector.patterns for one in several)
    return _TRUE if fits else _FALSE


def _field(name: str, job: JobFacts | None, gpu: GpuInfo | None, conditions: Conditions) -> _Value:
    """The value of a field; a name that no release has yet is not known."""
    if name == "gpu_model":
        return gpu.model if gpu else None
    if name == "node":
        return (job.node if job else "") or conditions.node or None
    if job is None:
        return None
    values: dict[str, _Value] = {
        "user": job.user,
        "group": job.groups,
        "account": job.account,
        "partition": job.partition,
        "qos": job.qos,
        "job_name": job.job_name,
        "reservation": job.reservation,
        "constraint": job.constraint,
        "gpus": job.gpus,
        "num_nodes": job.num_nodes,
    }
    return values.get(name, UNKNOWN)


def _fits(field: str, pattern: Pattern, value: str | int) -> bool:
    match pattern:
        case Compare(op=op, number=number):
            return isinstance(value, int) and compare(op, value, number)
        case Hosts(names=names):
            return value in names
        case Schedule():
            return False  # fits times, and no value
        case Glob(pattern=glob):
            text = str(value)
            if field == "gpu_model":
                return fits_model(glob, text)
            if field == "constraint":
                return any(fits_glob(glob, feature) for feature in features(text))
            return fits_glob(glob, text)


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
