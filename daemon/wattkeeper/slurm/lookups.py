"""By which way this node asks Slurm about jobs: the setting ``slurm.lookup``."""

import logging
from typing import Literal

from wattkeeper.protocols import JobLookup
from wattkeeper.slurm.programs import Programs
from wattkeeper.slurm.scontrol import Scontrol

log = logging.getLogger("wattkeeper.slurm")


async def open_lookups(
    which: Literal["auto", "pyslurm", "scontrol", "off"], programs: Programs
) -> tuple[tuple[str, JobLookup], ...]:
    """The ways to ask, by name, in the order to be tried; to be called only where a policy needs one. Each is to be
    closed. None with ``off``, and where ``pyslurm`` is set and is not to be had, which is logged."""
    sources: list[tuple[str, JobLookup]] = []
    if which in {"auto", "pyslurm"}:
        from wattkeeper.slurm.pyslurm import Pyslurm  # most sites never need it

        found = await Pyslurm.open(programs)
        if found is not None:
            sources.append(("pyslurm", found))
        elif which == "pyslurm":
            log.error("slurm.lookup is pyslurm, which cannot be used: no job is looked up; set it to auto")
    if which in {"auto", "scontrol"}:
        sources.append(("scontrol", Scontrol(programs)))
    return tuple(sources)
