"""Events that hooks left as files because no agent answered.

Slurm's hooks write here, and others may be able to as well: only a regular file that a user of ``slurm.event_users``
owns, and nobody else can change, is an event. What else bears an event's name is removed unread.
"""

import logging
import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wattkeeper.core.holdings import Moment
from wattkeeper.protocols import Clock
from wattkeeper.slurm.hook_event import MAX_ENVIRONMENT, EventKind
from wattkeeper.system.sparing import Sparing
from wattkeeper.system.trust import Kind, Trust, UntrustedError, fault_of, open_trusted

log = logging.getLogger("wattkeeper.spool")

SETTLED_S = 1.0
"""A folder's time of change tells two changes apart that are so far apart, on any file system."""

MOST_BYTES = 64 * 2**20
"""About so much is taken in at once."""

_NAME = re.compile(r"(?P<uptime>[0-9]{1,12}\.[0-9]{1,9})-(?P<pid>[0-9]{1,10})\.(?P<kind>prolog|epilog)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Spooled:
    """One event: which hook, when on the boot-time clock, its environment, and the file to remove once handled."""

    kind: EventKind
    when: Moment
    raw: bytes
    path: Path


class Spool:
    """The folder ``run_dir/spool``. Its file names begin with the uptime at which the hook wrote them."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        owners: Callable[[], frozenset[int]] = lambda: frozenset({0, os.geteuid()}),
        refused: Callable[[EventKind], object] = lambda _: None,
    ) -> None:
        """``owners``: the uids whose hooks are believed; ``refused`` is told of each file that is not."""
        self._folder = folder
        self._clock = clock
        self._owners = owners
        self._refused = refused
        self._sparing = Sparing(log, clock.mono)
        self._stuck: set[tuple[str, int]] = set()
        self._empty_since_ns: int | None = None

    def events(self) -> list[Spooled]:
        """What waits, oldest first. A file that is no event is removed, or left where that cannot be; told of either
        way, and counted."""
        named = sorted(filter(None, map(_NAME.fullmatch, self._names())), key=_place)
        if not named:
            self._stuck.clear()
            return []
        owners = self._owners()
        try:
            folder = open_trusted(self._folder, self._of_folder(owners), os.O_PATH)
        except (OSError, UntrustedError) as error:
            self._sparing.warn("folder", f"events wait, but not where they can be believed: {error}")
            return []
        found: list[Spooled] = []
        try:
            for parts in named:
                found += self._take(parts, folder, Trust(owners=owners, way=False))
                if sum(len(event.raw) for event in found) > MOST_BYTES:
                    break  # the rest another time
        finally:
            os.close(folder)
        return found

    def _of_folder(self, owners: frozenset[int]) -> Trust:
        """Our group may write there: it is how root lets us take events out."""
        with suppress(OSError):
            if self._folder.lstat().st_gid in {0, os.getegid()}:
                return Trust(Kind.FOLDER, owners, forbidden=0o002)
        return Trust(Kind.FOLDER, owners)

    def _take(self, parts: re.Match[str], folder: int, trust: Trust) -> Sequence[Spooled]:
        """The event of that name, if it is one."""
        path, kind = self._folder / parts.string, EventKind(parts["kind"])
        try:
            raw = _read(path.name, folder, trust)
        except FileNotFoundError:
            return ()  # somebody was faster
        except OSError as error:
            self._sparing.warn("unreadable", f"{path}: cannot read this event ({error.strerror})")
            return ()
        except _StrangeError as strange:
            self._refuse(path, kind, strange, folder)
            return ()
        now = self._clock.mono()
        mono = min(float(parts["uptime"]), now)
        return (Spooled(kind, Moment(self._clock.wall() - (now - mono), mono), raw, path),)

    def _refuse(self, path: Path, kind: EventKind, strange: "_StrangeError", folder: int) -> None:
        status = strange.status
        if (path.name, status.st_ino) in self._stuck:
            return
        self._refused(kind)
        done = "removed"
        try:
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(path.name, dir_fd=folder)
            else:
                os.unlink(path.name, dir_fd=folder)
        except OSError as error:
            self._stuck.add((path.name, status.st_ino))
            done = f"it cannot be removed ({error.strerror}): rm -r {path}"
        self._sparing.warn(("refused", status.st_uid), f"{path}: no event of Slurm's: {strange}; {done}")

    def _names(self) -> list[str]:
        """What is in the folder; one that was empty, and has not been changed since, is not listed again."""
        try:
            changed_ns = self._folder.stat().st_mtime_ns  # before the listing: what comes after it changes that
            if changed_ns == self._empty_since_ns:
                return []
            names = [path.name for path in self._folder.iterdir()]
        except OSError:
            return []
        settled = self._clock.wall() - changed_ns / 1e9 > SETTLED_S
        self._empty_since_ns = changed_ns if settled and not names else None
        return names


def _place(parts: re.Match[str]) -> tuple[float, int]:
    """By what events are sorted. A hundredth of a second has room for several hooks; later ones have higher pids."""
    return float(parts["uptime"]), int(parts["pid"])


class _StrangeError(Exception):
    """What bears an event's name and is none."""

    def __init__(self, status: os.stat_result, fault: str) -> None:
        super().__init__(fault.partition(": ")[0])
        self.status = status


def _read(name: str, folder: int, trust: Trust) -> bytes:
    """An event's environment, up to what no environment has. Raises OSError, _StrangeError."""
    _require(os.stat(name, dir_fd=folder, follow_symlinks=False), trust)
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(file, "rb") as stream:
        _require(os.fstat(file), trust)
        return stream.read(MAX_ENVIRONMENT + 1)


def _require(status: os.stat_result, trust: Trust) -> None:
    fault = fault_of(status, trust, "")
    if fault is not None:
        raise _StrangeError(status, fault)
