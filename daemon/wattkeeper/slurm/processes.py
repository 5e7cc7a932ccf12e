"""Whose processes use a GPU: from process ids to Slurm's jobs, by the kernel's word."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wattkeeper.model import Holding, JobKey

MOST_REMEMBERED = 4096

EvidenceOf = Callable[[int], Mapping[str, str]]
"""What the environment of a process says of its Slurm job, by process id (``privileged.evidence``)."""

_CGROUP = re.compile(r"/[^/\n]*slurm[^/\n]*/(?:uid_[0-9]+/)?job_(?P<job>[0-9]{1,10})(?=/|$)", re.MULTILINE)
"""Slurm's cgroup of a job: ``/slurm/uid_1000/job_7/…`` (version 1), ``/system.slice/slurmstepd.scope/job_7/…`` (2)."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What one process says. ``by_cgroup`` is Slurm's word, ``by_environment`` only its user's."""

    start: str
    uid: int
    by_cgroup: int | None
    by_environment: int | None


class Processes:
    """Tells which job a process is of. Remembers it, because a job's last use is read when its processes have ended.

    For one thread. Never raises: a process that cannot be read is nobody's.
    """

    def __init__(self, evidence_of: EvidenceOf, proc: Path = Path("/proc")) -> None:
        self._evidence_of = evidence_of
        self._proc = proc
        self._claims: dict[int, _Claim] = {}

    def weigh(self, use_by_pid: Mapping[int, int], holders: Sequence[Holding]) -> dict[JobKey, int] | None:
        """How much each holder of a GPU has used it, by how much its processes have; None where nobody can tell.

        What processes used that are no holder's (an MPS server serves them all) counts for each holder alike.
        """
        keys = {holding.job.key.job_id: holding.job.key for holding in holders}
        uids = {holding.job.key.job_id: holding.job.uid for holding in holders}
        used, nobodys = dict.fromkeys(keys.values(), 0), 0
        for pid, use in use_by_pid.items():
            job_id = self.job_of(pid, uids)
            if job_id in keys:
                used[keys[job_id]] += use
            else:
                nobodys += use
        if not any(used.values()):
            return None
        return {key: use * len(keys) + nobodys for key, use in used.items()}

    def job_of(self, pid: int, uids: Mapping[int, int]) -> int | None:
        """The job of a process: by its cgroup, else by SLURM_JOB_ID of its environment.

        ``uids``: by job, its user. An environment is believed only of a process that is that user's.
        """
        claim = self._claim(pid)
        if claim is None:
            return None
        if claim.by_cgroup is not None:
            return claim.by_cgroup
        named = claim.by_environment
        return named if named is not None and uids.get(named) == claim.uid else None

    def _claim(self, pid: int) -> _Claim | None:
        known = self._claims.get(pid)
        try:
            start = _start_of((self._proc / str(pid) / "stat").read_text(errors="replace"))
        except OSError:
            return known  # it has ended
        if known is not None and known.start == start and (known.by_cgroup or known.by_environment):
            return known
        try:
            claim = self._read(pid, start)
        except OSError:
            return None
        self._claims[pid] = claim
        if len(self._claims) > MOST_REMEMBERED:
            del self._claims[next(iter(self._claims))]
        return claim

    def _read(self, pid: int, start: str) -> _Claim:
        folder = self._proc / str(pid)
        by_cgroup = _job_of_cgroups((folder / "cgroup").read_text(errors="replace"))
        by_environment = None
        if by_cgroup is None:
            job_id = self._evidence_of(pid).get("SLURM_JOB_ID", "")
            by_environment = int(job_id) if job_id.isascii() and job_id.isdecimal() and len(job_id) <= 10 else None
        return _Claim(start, folder.stat().st_uid, by_cgroup, by_environment)


def _start_of(stat: str) -> str:
    """When a process began, in ticks since boot (proc_pid_stat(5), field 22); its name may hold anything."""
    return "".join(stat.rpartition(")")[2].split()[19:20])


def _job_of_cgroups(text: str) -> int | None:
    """The job whose cgroup a process is in. Users name the cgroups of their own sessions: those say nothing."""
    for line in text.splitlines():
        found = _CGROUP.search(line)
        if found and "/user.slice/" not in line[: found.start() + 1]:
            return int(found["job"])
    return None
