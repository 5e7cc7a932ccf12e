"""The metrics as a file, for node_exporter's textfile collector."""

import logging
from collections.abc import Callable
from pathlib import Path

from wattkeeper.exporters.prometheus import TEXTFILE
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.privileged.worker import DeviceThread
from wattkeeper.system.files import write_whole

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
            await self._thread.run("write", lambda: write_whole(path, page), WRITE_DEADLINE_S, replaces=True)
        except (OSError, DeviceError) as error:
            if self._trouble != str(error):
                log.error("metrics.textfile %s cannot be written: %s", path, error)
            self._trouble = str(error)
        else:
            self._trouble = None
