"""What a process has used, by the kernel's books; and a scrape, as Prometheus makes one."""

import time
import urllib.request
from pathlib import Path

CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3): the clock of a process is made of its id


class Usage:
    """CPU time and memory of one process, all its threads included."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_s(self) -> float:
        """CPU time since its start: what utime and stime of /proc/PID/stat say, to the nanosecond."""
        return time.clock_gettime((~self._pid << 3) | CPUCLOCK_SCHED)

    def rss_mib(self) -> float:
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise ProcessLookupError(f"process {self._pid} has ended")


def scrape(url: str) -> bytes:
    """One GET of the metrics' page."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - this machine's own address
        page: bytes = answer.read()
        return page
