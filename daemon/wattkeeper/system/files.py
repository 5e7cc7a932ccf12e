"""Files that must be whole, and the lock that one agent holds."""

import fcntl
import os
from pathlib import Path

from wattkeeper.errors import AgentRunningError, WattkeeperError


def make_private_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder of that mode, or set the mode of one that is there. Raises WattkeeperError with the mend."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
    except OSError as error:
        raise WattkeeperError(f"{path}: cannot make this folder ({error.strerror}); make it, or run as root") from None


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace a file in one step: a reader sees the old content or the new, also after a crash. Raises OSError."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


class RunLock:
    """The lock on ``run_dir``: whoever holds it, and nobody else, writes limits on this node."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "lock"
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock, now or not at all. Raises AgentRunningError where another process has it."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            text = f"{self._path}: another agent is running (pid {holder}); stop it first, or use another run_dir"
            raise AgentRunningError(text) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        """Let go of the lock; the file stays, because removing it would race with the next holder."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
