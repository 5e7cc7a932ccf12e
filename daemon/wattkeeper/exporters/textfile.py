"""The metrics as a file, for node_exporter's textfile collector."""

import logging
from collections.abc import Callable
from pathlib import Path

from wattkeeper.exporters.prometheus import TEXTFILE
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.system.files import write_whole
from wattkeeper.system.trust import ANYBODYS, UntrustedError

log = logging.getLogger("wattkeeper.textfile")

WRITE_DEADLINE_S = 1.0


class Textfile:
    """Replaces one file by the present metrics, in a thread of its own: a disk that hangs holds nobody up."""

    def __init__(self, render: Callable[[str], tuple[bytes, str]]) -> None:
        self._render = render
        self._thread = DeviceThread("textfile")
        self._trouble: str | None = None

    async def write(self, path: Path) -> None:
        """Write the metrics to ``path``, whole. A failure is logged once and tried again next time."""
        page, _ = self._render(TEXTFILE)
        try:
            await self._thread.run("write", lambda: _write(path, page), WRITE_DEADLINE_S, replaces=True)
        except (OSError, DeviceError, UntrustedError) as error:
            if self._trouble != str(error):
                log.error("metrics.textfile %s cannot be written: %s", path, error)
            self._trouble = str(error)
        else:
            self._trouble = None


def _write(path: Path, page: bytes) -> None:
    """The folder is node_exporter's or a site's own. After a power cut the next tick writes the file again."""
    write_whole(path, page, durable=False, trust=ANYBODYS)
