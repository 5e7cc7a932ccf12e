"""End-of-job records: one line of JSON per run and node, the thing to bill by. ``docs/records.md`` is the schema.

Each record stands exactly once in a file of the day on which its run ended. On standard output, which systemd keeps in
the journal, it may stand twice after a crash, never not at all.
"""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wattkeeper.errors import StoreError
from wattkeeper.ledger.rows import local_day
from wattkeeper.model import Basis, EnergySource, GpuUuid, JobKey, JobText, Usage
from wattkeeper.protocols import GpuNote, JobRecord
from wattkeeper.system.failpoint import failpoint
from wattkeeper.system.files import sync_folder
from wattkeeper.system.trust import OUR_FOLDER, OURS, UntrustedError, check, open_trusted
from wattkeeper.text import printable, printable_once

VERSION = 1
"""``v`` of every record. A field that is added leaves it; one that goes, or means something else, raises it."""

TAIL_BYTES = 4 * 2**20
"""So much of the end of a day's file is searched: more than ``schema.RECORDED_AT_ONCE`` records take."""

_DAY_FILE = re.compile(r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})\.jsonl")
_ID_FIELDS = ("cluster", "job_id", "run", "node", "started_at")

_Id = tuple[object, ...]

_UNFIT = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)
"""What is raised where a record makes no sense."""


def to_values(record: JobRecord) -> dict[str, Any]:
    """A record as it becomes JSON: None for what is not known, users' text escaped."""
    note, facts, key = record.note, record.note.facts, record.note.facts.key
    energy = [usage.energy_mj for usage in record.usage.values()]
    energy_mj = sum(energy) if energy else None
    ended_at = _ended_at(record)
    return {
        "v": VERSION,
        "cluster": _text(key.cluster) or None,
        "job_id": key.job_id,
        "run": _text(key.run),
        "node": _text(facts.node) or None,
        "user": _text(facts.user),
        "uid": facts.uid,
        "account": _text(facts.account),
        "partition": _text(facts.partition),
        "qos": _text(facts.qos),
        "job_name": _text(facts.job_name),
        "started_at": round(note.started_at, 3),
        "ended_at": round(ended_at, 3),
        "started": _iso(note.started_at),
        "ended": _iso(ended_at),
        "seconds": round(max(0.0, ended_at - note.started_at), 3),
        "energy_mj": energy_mj,
        "energy_j": None if energy_mj is None else energy_mj / 1_000,
        "gpus": [_gpu(uuid, record.note.gpus.get(uuid), record.usage.get(uuid)) for uuid in _gpus(record)],
        "asked": None if note.asked is None else printable_once(note.asked),
        "outcome": note.outcome.value,
        "rule": _text(note.rule),
    }


def _ended_at(record: JobRecord) -> float:
    """When the run ended; where nobody noted it, when it began."""
    return record.note.started_at if record.note.ended_at is None else record.note.ended_at


def _gpus(record: JobRecord) -> list[GpuUuid]:
    minors = {uuid: note.minor for uuid, note in record.note.gpus.items()}
    return sorted({*minors, *record.usage}, key=lambda uuid: (minors.get(uuid, 1 << 16), uuid))


def _gpu(uuid: GpuUuid, note: GpuNote | None, usage: Usage | None) -> dict[str, Any]:
    seconds = usage.held_ns / 1e9 if usage and usage.held_ns else None
    return {
        "gpu": note.minor if note else None,
        "uuid": _text(uuid),
        "model": _text(note.model) if note else None,
        "energy_mj": usage.energy_mj if usage else None,
        "seconds": _rounded(seconds),
        "mean_w": _rounded(usage.energy_mj / 1_000 / seconds if usage and seconds else None),
        "peak_w": _scaled(usage.peak_mw if usage else None, 1_000),
        "capped_seconds": _rounded(_scaled(usage.capped_ns if usage else None, 10**9)),
        "cap_w": _scaled(note.cap_mw if note else None, 1_000),
        "basis": [basis.value for basis in Basis if usage and basis in usage.bases],
        "source": [source.value for source in EnergySource if usage and source in usage.sources],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _scaled(value: int | None, by: int) -> float | None:
    return None if value is None else value / by


def _text(text: JobText) -> str | None:
    return printable(text) if isinstance(text, str) else None


def _iso(at: float) -> str:
    return datetime.fromtimestamp(round(at, 3), UTC).astimezone().isoformat(timespec="milliseconds")


class Records:
    """The files ``YYYY-MM-DD.jsonl`` of a folder, and whoever is told of each line. For one thread at a time.

    ``write`` some, note in the ledger that they are written, say so with ``noted``, and only then ``write`` others:
    so what a crash or an error leaves in doubt are the last lines of a file, and these are searched.
    """

    def __init__(self, folder: Path, tell: Callable[[str], object]) -> None:
        """``tell`` is given each line once; OSError and ValueError that it raises are ignored."""
        self._folder = folder
        self._tell = tell
        self._sure: set[Path] = set()
        self._doubtful: set[Path] = set()
        self._told: set[_Id] = set()

    def write(self, records: Sequence[JobRecord]) -> Mapping[JobKey, str]:
        """Append those that do not stand in their day's file yet, and have them on the disk. Raises StoreError.

        Gives the runs of which no line can be made, as of one that began in the year 9999999, and why.
        """
        days: dict[Path, dict[_Id, str]] = {}
        unfit: dict[JobKey, str] = {}
        for record in records:
            try:
                path, values = self._folder / f"{local_day(_ended_at(record))}.jsonl", to_values(record)
                days.setdefault(path, {})[_id(values)] = json.dumps(values, separators=(",", ":"))
            except _UNFIT as error:
                unfit[record.note.facts.key] = printable(repr(error))
        for path, lines in days.items():
            try:
                self._write_day(path, lines)
            except UntrustedError as error:
                raise StoreError(f"end-of-job records wait: {error}") from None
            except OSError as error:
                text = f"{path}: cannot write end-of-job records ({error.strerror})"
                raise StoreError(f"{text}; make room on its disk, or let the agent's user write there") from None
        return unfit

    def noted(self) -> None:
        """The ledger knows that what was written is written."""
        self._sure |= self._doubtful
        self._doubtful.clear()
        self._told.clear()

    def prune(self, before_at: float) -> int:
        """Remove the files of days before; how many. Files of any other name are left. Raises StoreError."""
        oldest, count = local_day(before_at), 0
        try:
            for path in sorted(self._folder.iterdir()) if self._folder.is_dir() else []:
                name = _DAY_FILE.fullmatch(path.name)
                if name and name["day"] < oldest:
                    path.unlink()
                    count += 1
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot remove old records ({error.strerror}); remove them") from None
        return count

    def _write_day(self, path: Path, lines: Mapping[_Id, str]) -> None:
        there = set() if path in self._sure else _ids_at_the_end(path)
        self._sure.discard(path)
        self._doubtful.add(path)
        missing = [line for name, line in lines.items() if name not in there]
        if missing:
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700, parents=True)
                sync_folder(self._folder.parent)
            check(self._folder, OUR_FOLDER)
            _append(path, "".join(line + "\n" for line in missing).encode("ascii"))
        failpoint("records.appended")
        for name, line in lines.items():
            if name not in self._told:
                self._told.add(name)
                with suppress(OSError, ValueError):  # nobody listens any more
                    self._tell(line)


def _id(values: dict[str, Any]) -> _Id:
    return tuple(values.get(name) for name in _ID_FIELDS)


def _ids_at_the_end(path: Path) -> set[_Id]:
    """Whose records stand at the end of a file; what is no record there is passed over.

    Raises OSError, UntrustedError.
    """
    try:
        with os.fdopen(open_trusted(path), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return set()
    found = set()
    for line in lines[:-1]:  # after the last line break: nothing, or a line that a crash cut short
        with suppress(ValueError, AttributeError, TypeError):
            found.add(_id(json.loads(line)))
    return found


def _append(path: Path, content: bytes) -> None:
    """Put whole lines at the end of a file, all or none, and on the disk. Raises OSError, UntrustedError.

    A last line without its line break was cut short by a crash. Its run is not noted as written: it is cut off.
    """
    new = not path.exists()
    file = open_trusted(path, OURS, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = _end_of_lines(file)
        os.ftruncate(file, end)
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(file, content[written:], end + written)
            os.fsync(file)
        except OSError:
            os.ftruncate(file, end)
            raise
    finally:
        os.close(file)
    if new:
        sync_folder(path.parent)


def _end_of_lines(file: int) -> int:
    """Where the last whole line of a file ends."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - 65_536)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
