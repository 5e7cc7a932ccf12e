"""Whether the files of an open ledger are still the agent's own: another program may replace, cut or overwrite them.

SQLite does not look, and writes on into a file that nobody will find again.
"""

import os
from contextlib import suppress
from pathlib import Path

MAGIC = b"SQLite format 3\0"
HEAD_BYTES = 100
"""SQLite's header: its name, and what changes with every page that is added."""


class Watch:
    """Compares a ledger with what it was after our last write: a few system calls, and no page is read.

    The descriptor stays open for as long as SQLite's own: closing any of them would take away the locks that this
    process has on the file (fcntl(2)), and another process could remove the log under us.
    """

    def __init__(self, path: Path, file: int) -> None:
        """``file``: a descriptor of what is at ``path``; it is closed by ``close``."""
        self._path = path
        self._log = Path(f"{path}-wal")
        self._file = file
        self._closed = False
        self._head = b""
        self._size = 0
        self._log_id: tuple[int, int] | None = None

    def seen(self) -> None:
        """What the files are now is what we made of them."""
        if self._closed:
            return
        with suppress(OSError):
            self._head = os.pread(self._file, HEAD_BYTES, 0)
            self._size = os.fstat(self._file).st_size
            self._log_id = _id_of(self._log)

    def fault(self) -> str | None:
        """What another program has done to the ledger, in words; None: nothing, or nothing that can be told."""
        if self._closed:
            return None
        try:
            status = os.fstat(self._file)
            there = _id_of(self._path)
            if there is None:
                return "was removed"
            if there != (status.st_dev, status.st_ino):
                return "was replaced by another file"
            if status.st_size < self._size:
                return "was cut short"
            head = os.pread(self._file, HEAD_BYTES, 0)
            if head != self._head or not head.startswith(MAGIC):
                return "was overwritten"
            if self._log_id is not None and _id_of(self._log) != self._log_id:
                return "lost its write-ahead log"
        except OSError:
            return None  # SQLite says what is wrong with its disk
        return None

    @property
    def lost(self) -> bool:
        """True where nobody but this process has the file any more: it was removed, or another moved over it."""
        return not self._closed and os.fstat(self._file).st_nlink == 0

    def close(self) -> None:
        """Nothing may follow; SQLite has closed the file."""
        if not self._closed:
            self._closed = True
            os.close(self._file)


def _id_of(path: Path) -> tuple[int, int] | None:
    """Which file that is: device and number; None where there is none. A link is another file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
