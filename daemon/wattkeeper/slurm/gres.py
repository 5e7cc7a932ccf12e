"""From Slurm's numbering of a node's GPUs to devices: GRES index, ``File=``, minor number, UUID.

SLURM_JOB_GPUS counts the ``Name=gpu`` lines of ``slurmd -G`` (docs/decisions/what-slurms-hooks-know.md), not minor
numbers and not NVML's indices. Where no slurmd can be asked, index = minor is a guess and is called one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wattkeeper.errors import WattkeeperError
from wattkeeper.model import GpuInfo, GpuUuid, Sharing

_LINE = re.compile(r"Gres Name=(?P<name>\S+) .*?\bFile=(?P<file>\S+)")
_MINOR = re.compile(r"nvidia(?P<minor>[0-9]+)\Z")
_SHARING = frozenset({"shard", "mps"})
_SPAN = re.compile(r"(?P<low>[0-9]{1,4})(?:-(?P<high>[0-9]{1,4}))?")


class MappingError(WattkeeperError):
    """It cannot be said which devices a job's GPUs are: nothing is written."""


@dataclass(frozen=True, slots=True)
class GresGpu:
    """One GPU as Slurm counts it: its minor number (None: its ``File`` is no ``nvidiaN``) and file."""

    minor: int | None
    file: str
    share: Sharing


def parse_slurmd_g(text: str) -> tuple[GresGpu, ...]:
    """The GPUs in the output of ``slurmd -G`` (which is on standard error), in GRES order."""
    lines = [(found["name"], found["file"]) for found in _LINE.finditer(text)]
    shared = {file for name, file in lines if name in _SHARING}
    return tuple(
        GresGpu(_minor_of(file), file, Sharing.SHARED if file in shared else Sharing.WHOLE)
        for name, file in lines
        if name == "gpu"
    )


def _minor_of(file: str) -> int | None:
    found = _MINOR.search(file)
    return int(found["minor"]) if found else None


def parse_gpu_list(text: str) -> tuple[int | GpuUuid, ...]:
    """``0,1``, ``0-3`` or ``GPU-1c2d…,GPU-…`` (Slurm 25.11 and later can give UUIDs). Raises MappingError."""
    found: list[int | GpuUuid] = []
    for word in filter(None, text.replace(" ", "").split(",")):
        span = _SPAN.fullmatch(word)
        if span:
            found.extend(range(int(span["low"]), int(span["high"] or span["low"]) + 1))
        elif word.startswith(("GPU-", "MIG-")):
            found.append(GpuUuid(word))
        else:
            raise MappingError(f"SLURM_JOB_GPUS={text[:80]!r} is no list of GPUs: nothing is written")
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class GresMap:
    """Which device each GRES index is. ``override`` is the setting ``gpus.map``; ``gres`` None: no slurmd to ask."""

    gpus: Sequence[GpuInfo]
    gres: Sequence[GresGpu] | None = None
    override: Mapping[int, int | GpuUuid] | None = None

    def devices(self, job_gpus: str, visible: str | None) -> dict[GpuUuid, Sharing]:
        """The devices of SLURM_JOB_GPUS, with how each is held. ``visible``: CUDA_VISIBLE_DEVICES of the hook.

        UUIDs in ``visible`` win over the guess index = minor; against what slurmd or the settings say they are a
        second source, and sources must agree. Raises MappingError that names both.
        """
        named = [self._named(entry) for entry in parse_gpu_list(job_gpus)]
        seen = [GpuUuid(word) for word in (visible or "").split(",") if word.startswith("GPU-")]
        if seen and self.gres is None and self.override is None:
            return {self._present(uuid, "CUDA_VISIBLE_DEVICES").uuid: Sharing.WHOLE for uuid in seen}
        if seen and {uuid for uuid, _ in named} != {self._present(u, "CUDA_VISIBLE_DEVICES").uuid for u in seen}:
            source = "gpus.map" if self.override is not None else "slurmd -G"
            text = f"SLURM_JOB_GPUS={job_gpus} is {', '.join(uuid for uuid, _ in named)} by {source}"
            raise MappingError(f"{text}, but CUDA_VISIBLE_DEVICES says {', '.join(seen)}: nothing is written")
        return dict(named)

    def troubles(self) -> tuple[str, ...]:
        """What does not fit between Slurm's list and the driver's, in words; empty where all is well."""
        return tuple(
            f"gres.conf lists {entry.file} as GPU {place}, but the driver has no GPU with that minor number"
            for place, entry in enumerate(self.gres or ())
            if entry.minor is None or not any(gpu.minor == entry.minor for gpu in self.gpus)
        )

    def _named(self, entry: int | GpuUuid) -> tuple[GpuUuid, Sharing]:
        if isinstance(entry, str):
            uuid = self._present(entry, "SLURM_JOB_GPUS").uuid
            return uuid, self._share_of(uuid)
        if self.override is not None:
            if entry not in self.override:
                raise MappingError(f"SLURM_JOB_GPUS has {entry}, which gpus.map lacks: nothing is written")
            uuid = self._present(self.override[entry], "gpus.map").uuid
            return uuid, self._share_of(uuid)
        if self.gres is None:
            return self._present(entry, "SLURM_JOB_GPUS (taken as minor numbers: no slurmd to ask)").uuid, Sharing.WHOLE
        if entry >= len(self.gres):
            text = f"SLURM_JOB_GPUS has {entry}, but slurmd -G lists only {len(self.gres)} GPUs"
            raise MappingError(f"{text}: nothing is written; restart the agent after a change of gres.conf")
        line = self.gres[entry]
        if line.minor is None:
            raise MappingError(f"GPU {entry} of Slurm is {line.file}, no nvidiaN: nothing is written; set gpus.map")
        return self._present(line.minor, f"File={line.file} of gres.conf").uuid, line.share

    def _present(self, name: int | GpuUuid, source: str) -> GpuInfo:
        for gpu in self.gpus:
            if name in {gpu.minor, gpu.uuid}:
                return gpu
        what = f"minor number {name}" if isinstance(name, int) else name
        raise MappingError(f"{source} names {what}, but the driver has no such GPU: nothing is written")

    def _share_of(self, uuid: GpuUuid) -> Sharing:
        minor = next((gpu.minor for gpu in self.gpus if gpu.uuid == uuid), None)
        return next((entry.share for entry in self.gres or () if entry.minor == minor), Sharing.WHOLE)
