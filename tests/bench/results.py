"""What was measured, against what is to hold."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["held", "BEYOND", "not measured here"]


@dataclass(frozen=True)
class Figure:
    """One measured number and the most it may be; no bound where it is told for the reader alone."""

    name: str
    value: float
    unit: str
    bound: float | None = None

    @property
    def held(self) -> bool:
        """False beyond the bound, and for what is no number."""
        return self.bound is None or self.value <= self.bound


@dataclass(frozen=True)
class Row:
    """One row of the table. ``profile`` names the simulated driver's latency."""

    what: str
    profile: str
    figures: tuple[Figure, ...] = ()
    peer: str = ""
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        if not self.figures:
            return "not measured here"
        return "held" if all(figure.held for figure in self.figures) else "BEYOND"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def exit_status(rows: Iterable[Row]) -> int:
    """1 where a figure is beyond its bound."""
    return int(any(row.verdict == "BEYOND" for row in rows))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed."""
    place = max(math.ceil(len(values) * percent / 100), 1)
    return sorted(values)[place - 1]


def median_ms(values_s: Sequence[float]) -> float:
    return statistics.median(values_s) * 1000
