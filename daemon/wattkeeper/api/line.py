"""The one line that tells a job's owner what the job used."""

from collections.abc import Mapping, Sequence
from typing import Any

from wattkeeper.units import Millijoules, Milliwatts, format_energy, format_power

MEAN_FROM_S = 1.0
"""Over less time people are told no mean: a card's counter moves in steps, it could be more than the card can draw."""


def usage_line(job: Mapping[str, Any], num_nodes: object = None) -> str:
    """``wattkeeper: job 1234 used 1.20 kWh (GPUs 0,1: mean 310 W each, held back by the cap 12 % of the time)``.

    ``job`` is what ``GET /v1/jobs/ID`` answers. ``num_nodes``: of the whole job, where known; a job on several nodes
    reads which one the figure is of. What no card told is left out. What earlier runs of the job used comes last.
    """
    gpus = sorted(job["gpus"], key=lambda gpu: int(gpu["gpu"]))
    head = f"wattkeeper: job {job['job_id']}"
    place = f" on {job['node']}" if isinstance(num_nodes, int) and num_nodes > 1 and job["node"] else ""
    joules = energy_j(job)
    earlier = earlier_use(job)
    rest = f"; {earlier}" if earlier else ""
    if not gpus:
        return f"{head}: no GPU on this node" if joules is None else f"{head} used {_energy(joules)}{place}{rest}"
    which = f"GPU{'s' if len(gpus) > 1 else ''} {','.join(str(gpu['gpu']) for gpu in gpus)}"
    if joules is None:
        return f"{head}: its energy{place} is not known ({which}){rest}"
    parts = [part for part in (_mean(gpus), _held_back(gpus)) if part]
    details = f"{which}: {', '.join(parts)}" if parts else which
    return f"{head} used {_energy(joules)}{place} ({details}){rest}"


def earlier_use(job: Mapping[str, Any]) -> str:
    """``an earlier run used 2.60 kJ`` of a job that was requeued; empty where it was not."""
    runs, joules = job.get("earlier_runs") or (), job.get("earlier_energy_j")
    if not runs:
        return ""
    which = "an earlier run" if len(runs) == 1 else f"{len(runs)} earlier runs"
    return f"{which} used {'an energy that is not known' if joules is None else _energy(joules)}"


def energy_j(job: Mapping[str, Any]) -> float | None:
    """Joules of all the job's GPUs on this node; None where none is known."""
    whole = job.get("total")
    known = whole["energy_j"] if whole else total(job["gpus"], "energy_j")
    return None if known is None else float(known)


def total(gpus: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The sum of a figure over those GPUs that have it; None where none has."""
    known = [float(gpu[name]) for gpu in gpus if gpu.get(name) is not None]
    return sum(known) if known else None


def mean_w(gpus: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean power of a GPU, in watts, over the time for which there is an energy; None where there is too little."""
    metered = [gpu for gpu in gpus if gpu.get("energy_j") is not None and (gpu.get("seconds") or 0.0) >= MEAN_FROM_S]
    seconds, joules = total(metered, "seconds"), total(metered, "energy_j")
    return joules / seconds if seconds and joules is not None else None


def held_back(gpus: Sequence[Mapping[str, Any]]) -> float | None:
    """The share, 0 to 1, of the GPUs' time in which the limit held them back; None where no card told."""
    told = [gpu for gpu in gpus if gpu.get("capped_s") is not None and gpu.get("seconds")]
    seconds, capped = total(told, "seconds"), total(told, "capped_s")
    return min(1.0, capped / seconds) if seconds and capped is not None else None


def percent(share: float) -> str:
    """``12 %``; what is more than nothing is never 0 %, and what is less than all never 100 %."""
    if 0 < share < 0.01:
        return "< 1 %"
    if 0.99 < share < 1:
        return "> 99 %"
    return f"{share * 100:.0f} %"


def _energy(joules: float) -> str:
    return format_energy(Millijoules(round(joules * 1000)))


def _mean(gpus: Sequence[Mapping[str, Any]]) -> str:
    power = mean_w(gpus)
    if power is None:
        return ""
    return f"mean {format_power(Milliwatts(round(power) * 1000))}{' each' if len(gpus) > 1 else ''}"


def _held_back(gpus: Sequence[Mapping[str, Any]]) -> str:
    share = held_back(gpus)
    return "" if share is None else f"held back by the cap {percent(share)} of the time"
