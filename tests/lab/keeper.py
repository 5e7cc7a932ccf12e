"""Ends everything that belongs to a lab, also when the lab's owner was killed.

The owner starts this as a process of its own session and holds the other end of its standard input. At the end of
that file, whatever brought it about, every process of the lab is killed and its folder removed.
Standard library only: it is run as a plain script.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

MARK = "WATTKEEPER_LAB"


def alive(pid: int) -> bool:
    """Whether a process runs. A zombie does not: process 1 may reap it late or never."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _marked(pid: int, marks: tuple[bytes, ...]) -> bool:
    try:
        environ = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return any(mark in environ for mark in marks)


def members(root: Path) -> set[int]:
    """The living processes of a lab: those with its mark in their environment, and their descendants."""
    marks = (f"\0{MARK}={root}\0".encode(), f"\0SLURM_CONF={root}/".encode())
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    parents = {pid: _parent(pid) for pid in pids}
    found = {pid for pid in pids if _marked(pid, marks)}
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return {pid for pid in found if alive(pid)} - {os.getpid()}


def sweep(root: Path, patience_s: float = 10.0) -> set[int]:
    """Kills a lab's processes until none is left. Returns those that would not die in time."""
    end = time.monotonic() + patience_s
    while left := members(root):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > end:
            return left
        time.sleep(0.02)
    return set()


def main(root: Path) -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    stubborn = sweep(root)
    if os.environ.get("WATTKEEPER_LAB_KEEP") != "1":
        shutil.rmtree(root, ignore_errors=True)
    return 1 if stubborn else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
