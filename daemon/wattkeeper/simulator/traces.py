"""Loads of one's own: recorded power over time, played to a simulated GPU."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wattkeeper.errors import Problem
from wattkeeper.simulator.library import SimulatorError
from wattkeeper.simulator.structures import MAX_SEGMENTS, CSegment
from wattkeeper.simulator.views import Gpu
from wattkeeper.text import printable

MOST_SECONDS = 4294.0
_LEAST_SECONDS = 0.001
_MOST_WATTS = 100_000.0
_NAME_BYTES = 23
_COLUMNS = ("seconds", "watts", "memory")


@dataclass(frozen=True, slots=True)
class Segment:
    """For so long a load draws so much: a ``level`` from 0 (idle) to 1 (the model's peak), or ``watts``.

    ``memory``: the share of the time that waits for memory, which a lower clock does not lengthen.
    """

    seconds: float
    level: float | None = None
    watts: float | None = None
    memory: float = 0.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Segments, run through ``once`` or over and over. ``name`` is for people. Raises SimulatorError."""

    segments: tuple[Segment, ...]
    name: str = "trace"
    once: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.segments) <= MAX_SEGMENTS:
            raise SimulatorError(f"a trace has 1 to {MAX_SEGMENTS} segments, not {len(self.segments)}")
        for at, segment in enumerate(self.segments, start=1):
            said = _problem(segment)
            if said:
                raise SimulatorError(f"segment {at} of a trace: {said}")

    @classmethod
    def from_csv(cls, path: Path | str, *, once: bool = False) -> Self:
        """A trace from rows of ``seconds,watts[,memory]`` below a header that says so.

        ``seconds`` is how long the row lasts, ``watts`` what the GPU draws meanwhile (what is outside of the
        model's idle and peak counts as these), ``memory`` a share from 0 to 1. Empty lines and lines that begin
        with # are passed over. Raises ``ConfigError`` with every mistake, by file and line.
        """
        from wattkeeper.config.walk import raise_if_any
        from wattkeeper.config.yaml_lines import read_text

        path = Path(path)
        rows = _rows(read_text(path))
        line, header = next(rows, (1, []))
        columns = tuple(word.lower() for word in header)
        problems: list[Problem] = []
        segments: list[Segment] = []
        if columns not in (_COLUMNS, _COLUMNS[:2]):
            text = f"the header is '{printable(','.join(header), 60)}' (allowed: {','.join(_COLUMNS)})"
            problems.append(Problem(str(path), line, "", text))
            rows = iter(())
        for line, row in rows:
            found = _segment(row, len(columns))
            if isinstance(found, str):
                problems.append(Problem(str(path), line, "", found))
            else:
                segments.append(found)
            if len(segments) > MAX_SEGMENTS:
                problems.append(Problem(str(path), line, "", f"more than {MAX_SEGMENTS} rows (mend: longer ones)"))
                break
        if not segments and not problems:
            problems.append(Problem(str(path), line, "", "has no rows below its header"))
        raise_if_any(problems)
        return cls(tuple(segments), _name(path.stem), once)

    def segments_for(self, gpu: Gpu) -> list[CSegment]:
        """The segments as the library takes them, watts by the model's idle and peak."""
        span_mw = gpu.peak_mw - gpu.idle_mw
        structures: list[CSegment] = []
        for segment in self.segments:
            level = segment.level or 0.0
            if segment.watts is not None:
                level = (segment.watts * 1000 - gpu.idle_mw) / span_mw if span_mw else 0.0
            structures.append(
                CSegment(
                    duration_us=round(segment.seconds * 1_000_000),
                    level_bp=round(min(1.0, max(0.0, level)) * 10_000),
                    memory_bp=round(segment.memory * 10_000),
                )
            )
        return structures


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that say something, each with its line."""
    for line, written in enumerate(text.splitlines(), start=1):
        cells = [cell.strip() for cell in written.split(",")]
        if any(cells) and not cells[0].startswith("#"):
            yield line, cells


def _segment(row: list[str], columns: int) -> Segment | str:
    """A row's segment, or what is wrong with the row."""
    if len(row) != columns:
        return f"has {len(row)} cells, not {columns}"
    numbers: list[float] = []
    for name, cell in zip(_COLUMNS, row, strict=False):
        try:
            numbers.append(float(cell))
        except ValueError:
            return f"{name} '{printable(cell, 40)}' is not a number"
    segment = Segment(numbers[0], watts=numbers[1], memory=numbers[2] if columns > 2 else 0.0)
    return _problem(segment) or segment


def _problem(segment: Segment) -> str | None:
    if not _LEAST_SECONDS <= segment.seconds <= MOST_SECONDS:
        return f"seconds {segment.seconds:g} is out of bounds (allowed: {_LEAST_SECONDS:g} to {MOST_SECONDS:g})"
    if (segment.level is None) == (segment.watts is None):
        return "needs a level or watts, not both"
    if segment.level is not None and not 0 <= segment.level <= 1:
        return f"level {segment.level:g} is out of bounds (allowed: 0 to 1)"
    if segment.watts is not None and not 0 <= segment.watts <= _MOST_WATTS:
        return f"watts {segment.watts:g} is out of bounds (allowed: 0 to {_MOST_WATTS:g})"
    if not 0 <= segment.memory <= 1:
        return f"memory {segment.memory:g} is out of bounds (allowed: 0 to 1)"
    return None


def _name(stem: str) -> str:
    plain = "".join(char if "!" <= char <= "~" else "_" for char in stem)
    return plain[:_NAME_BYTES] or "trace"
