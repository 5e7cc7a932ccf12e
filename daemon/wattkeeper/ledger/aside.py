"""Files that are moved out of a ledger's way: how they are called, and which damaged one was the last."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wattkeeper.ledger import schema

REPLACED = ".replaced-"
"""What follows a ledger's name in that of a file that had taken its place."""

_STAMP = "%Y%m%dT%H%M%SZ"
_END = re.compile(rf"{re.escape(schema.ASIDE)}([0-9]{{8}}T[0-9]{{6}}Z)(-[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SetAside:
    """A damaged ledger's new place, and the Unix time at which it came there."""

    path: Path
    at: float


def name_for(path: Path, at: float, why: str = schema.ASIDE) -> Path:
    """Where what is in a ledger's place at that Unix time goes: beside it, where nothing is yet."""
    stamp = datetime.fromtimestamp(at, UTC).strftime(_STAMP)
    aside = path.with_name(f"{path.name}{why}{stamp}")
    count = 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}{why}{stamp}-{count}")
    return aside


def put_back(saved: Path, path: Path, at: float) -> Path | None:
    """Move a saved ledger to its place; where what was there instead is now. Raises OSError."""
    for suffix in ("-wal", "-shm"):  # of another ledger: it must never be played into this one
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    moved = None
    if path.exists():
        moved = path.rename(name_for(path, at, REPLACED))
    saved.rename(path)
    return moved


def last_of(path: Path) -> SetAside | None:
    """The last that was set aside from there; None where there is none. Raises OSError."""
    found = []
    for aside in path.parent.glob(f"{path.name}{schema.ASIDE}*"):
        end = _END.fullmatch(aside.name.removeprefix(path.name))
        if end is not None:
            at = datetime.strptime(end[1], _STAMP).replace(tzinfo=UTC).timestamp()
            found.append(SetAside(aside, at))
    return max(found, key=lambda aside: aside.at, default=None)
