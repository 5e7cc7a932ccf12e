"""Files that must be whole, and the lock that one agent holds."""

import errno
import fcntl
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from wattkeeper.errors import AgentRunningError, WattkeeperError
from wattkeeper.system.trust import OURS, Kind, Trust, UntrustedError, fault_of, open_folder_of, open_trusted
from wattkeeper.text import printable


def make_private_folder(path: Path, mode: int = 0o700, owners: frozenset[int] = frozenset()) -> None:
    """Make a folder of that mode, or set the mode of one that is there. Raises WattkeeperError with the mend.

    One that root or a uid of ``owners`` made for us, or that we made for a group, is left as it is, unless it is
    everybody's.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        folder = open_trusted(path, Trust(Kind.FOLDER, owners, forbidden=0), os.O_PATH)
        try:
            status = os.fstat(folder)
            if status.st_uid != os.geteuid() or status.st_gid not in {0, os.getegid()}:
                _leave_as_made(path, status, owners)
            elif status.st_mode & 0o777 != mode:
                os.chmod(f"/proc/self/fd/{folder}", mode)  # noqa: PTH101 - fchmod takes no O_PATH
        finally:
            os.close(folder)
    except OSError as error:
        raise WattkeeperError(f"{path}: cannot make this folder ({error.strerror}); make it, or run as root") from None


def _leave_as_made(path: Path, status: os.stat_result, owners: frozenset[int]) -> None:
    forbidden = 0 if status.st_mode & stat.S_ISVTX else 0o002
    fault = fault_of(status, Trust(Kind.FOLDER, owners, forbidden), shlex.quote(str(path)))
    if fault:
        raise UntrustedError(path, fault)


def write_whole(path: Path, content: bytes, mode: int = 0o644, *, durable: bool = True, trust: Trust = OURS) -> None:
    """Replace a file in one step: a reader sees the old content or the new, also after a crash.

    ``durable``: the new one, once this returns, also after a power cut. ``trust``: whose the folder must be. What lies
    there under either name is replaced, never followed. Raises OSError, UntrustedError.
    """
    folder = open_folder_of(path.absolute(), trust)
    scratch = f".{path.name}.{os.getpid()}.tmp"
    try:
        _write_new(scratch, content, mode, folder)
        os.replace(scratch, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        if durable:
            sync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(scratch, dir_fd=folder)
        os.close(folder)


def _write_new(name: str, content: bytes, mode: int, folder: int) -> None:
    """A file that was not there before, on the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        number = os.open(name, flags, mode, dir_fd=folder)
    except FileExistsError:  # of a process of our number, before us; or somebody put it there
        os.unlink(name, dir_fd=folder)
        number = os.open(name, flags, mode, dir_fd=folder)
    with os.fdopen(number, "wb") as file:
        os.fchmod(number, mode)
        file.write(content)
        file.flush()
        os.fsync(number)


def sync_folder(folder: Path) -> None:
    """Have on the disk which files a folder holds. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


class RunLock:
    """The lock on ``run_dir``: whoever holds it, and nobody else, writes limits on this node."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "lock"
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock, now or not at all. Raises AgentRunningError where another process has it.

        Raises UntrustedError where something else lies in its place, OSError where it cannot be opened.
        """
        file = _open_lock(self._path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = printable(os.pread(file, 32, 0).decode(errors="replace").strip(), 16) or "unknown"
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


def _open_lock(path: Path) -> int:
    """The file of a lock, made where it is not there.

    Whoever else may write to the folder can lay a link there, or a second name of another file: neither is taken.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        try:
            file = os.open(path, flags)  # O_CREAT on a file of another user's is refused in sticky folders (proc(5))
        except FileNotFoundError:
            file = _make_lock(path, flags)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise UntrustedError(path, f"is not a regular file: rm -r {shlex.quote(str(path))}") from None
        raise
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(file)
        raise UntrustedError(path, f"is not a file with one name only: rm {shlex.quote(str(path))}")
    return file


def _make_lock(path: Path, flags: int) -> int:
    """A new file, for the folder's group too where root makes it: the agent may come after ``wattkeeper restore``."""
    try:
        file = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    if os.geteuid() == 0:
        os.fchown(file, -1, path.parent.stat().st_gid)
        os.fchmod(file, 0o660)
    return file
