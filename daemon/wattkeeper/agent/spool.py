"""Events that hooks left as files because no agent answered."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from wattkeeper.core.holdings import Moment
from wattkeeper.protocols import Clock
from wattkeeper.slurm.hook_event import EventKind

log = logging.getLogger("wattkeeper.spool")

_NAME = re.compile(r"(?P<uptime>[0-9]+\.[0-9]+)-[0-9]+\.(?P<kind>prolog|epilog)")


@dataclass(frozen=True, slots=True)
class Spooled:
    """One event: which hook, when on the boot-time clock, its environment, and the file to remove once handled."""

    kind: EventKind
    when: Moment
    raw: bytes
    path: Path


class Spool:
    """The folder ``run_dir/spool``. Its file names begin with the uptime at which the hook wrote them."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def events(self) -> list[Spooled]:
        """What waits, oldest first. A file that is no event, or cannot be read, is left and told of once."""
        found = []
        for path in sorted(self._paths()):
            name = _NAME.fullmatch(path.name)
            if name is None:
                continue
            try:
                raw = path.read_bytes()
            except OSError as error:
                log.error("%s: cannot read this event (%s)", path, error.strerror)
                continue
            mono = float(name["uptime"])
            at = self._clock.wall() - max(0.0, self._clock.mono() - mono)
            found.append(Spooled(EventKind(name["kind"]), Moment(at, mono), raw, path))
        return found

    def _paths(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        except OSError:
            return []
