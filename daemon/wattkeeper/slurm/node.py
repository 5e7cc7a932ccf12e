"""Questions to Slurm's own programs on this node. None of them asks slurmctld."""

import asyncio
import logging
import re
from collections.abc import Mapping
from pathlib import Path

from wattkeeper.slurm.gres import GresGpu, parse_slurmd_g
from wattkeeper.slurm.processes import EvidenceOf
from wattkeeper.slurm.programs import Programs
from wattkeeper.text import printable

log = logging.getLogger("wattkeeper.slurm")

_ROW = re.compile(r"\s*(?P<pid>[0-9]+)\s+(?P<job>[0-9]+)\s+(?P<step>\S+)")


class SlurmNode:
    """The node's slurmd and scontrol. ``conf``: slurm.conf where it is not in its usual place."""

    def __init__(
        self, node: str, conf: Path | None, bin_dir: Path | None, timeout_s: float, evidence_of: EvidenceOf
    ) -> None:
        self._node = node
        self._programs = Programs(conf, bin_dir)
        self._timeout_s = timeout_s
        self._evidence_of = evidence_of

    async def gres(self) -> tuple[GresGpu, ...] | None:
        """The node's GPUs in GRES order (``slurmd -G``, 5 ms, no RPC); None where there is no Slurm to ask.

        Empty, and logged, where there is one and it lists no GPU: then no number of Slurm's can be believed.
        """
        slurmd = self._programs.find("slurmd")
        if slurmd is None or not self._programs.configured():
            log.info("no slurmd to ask: SLURM_JOB_GPUS are taken as minor numbers")
            return None
        done = await self._programs.run("slurmd", "-G", "-N", self._node, deadline_s=self._timeout_s)
        found = parse_slurmd_g(done.complaint + "\n" + done.output)
        if not found:
            said = printable((done.complaint or done.output).strip().rpartition("\n")[2] or "nothing", 200)
            log.error(
                "%s -G -N %s lists no GPU and said: %s; set `node`, slurm.conf or gpus.map", slurmd, self._node, said
            )
        return found

    async def running(self) -> Mapping[int, Mapping[str, str]] | None:
        """By job id, the Slurm environment of each job with a process here (``scontrol listpids``, 5 ms, no RPC).

        The job ids are the slurmstepds' word. The rest comes from the processes' environments, which are the
        user's to change: evidence for a GPU that nobody else holds, and no more; empty
        where they do not say. None where it cannot be told at all.
        """
        done = await self._programs.run("scontrol", "listpids", "*", self._node, deadline_s=self._timeout_s)
        if done.status is None:
            return None
        return await asyncio.to_thread(self._ask_processes, done.output)

    def _ask_processes(self, table: str) -> dict[int, dict[str, str]]:
        jobs: dict[int, dict[str, str]] = {}
        for row in _ROW.finditer(table):
            job_id = int(row["job"])
            environment = self._environment_of(int(row["pid"]))
            if environment.get("SLURM_JOB_ID") != str(job_id):
                environment = {}
            if len(environment) > len(jobs.get(job_id, {})):
                environment.setdefault("SLURM_JOB_GPUS", environment.get("SLURM_STEP_GPUS", ""))
                jobs[job_id] = environment
            jobs.setdefault(job_id, {})
        return jobs

    def _environment_of(self, pid: int) -> dict[str, str]:
        try:
            return dict(self._evidence_of(pid))
        except OSError:
            return {}
