"""From Slurm's numbering of a node's GPUs to devices: GRES index, ``File=``, minor number, UUID.

SLURM_JOB_GPUS counts the ``Name=gpu`` lines of ``slurmd -G`` (docs/decisions/what-slurms-hooks-know.md), not minor
numbers and not NVML's indices. Where no slurmd can be asked, index = minor is a guess and is called one.

A MIG instance is a GPU to Slurm, with a line of its own: ``File=/dev/nvidia1,/dev/nvidia-caps/nvidia-cap111,…`` where
slurmd found it (AutoDetect=nvml), often the capability alone where a site wrote it, which does not tell its GPU.
CUDA_VISIBLE_DEVICES has its UUID then.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from wattkeeper.errors import WattkeeperError
from wattkeeper.model import GpuInfo, GpuUuid, Sharing
from wattkeeper.text import printable

_LINE = re.compile(r"Gres Name=(?P<name>\S+) (?:Type=(?P<type>\S+) )?.*?\bFile=(?P<file>\S+)")
_MINOR = re.compile(r"nvidia(?P<minor>[0-9]+)(?=,|\Z)")
_MIG_TYPE = re.compile(r"(?<![0-9])(?P<slices>[0-9])g\.[0-9]+gb")
_OLD_MIG = re.compile(r"MIG-(?P<gpu>GPU-[0-9A-Za-z-]+)/[0-9]+/[0-9]+")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]{1,80}")
_SHARING = frozenset({"shard", "mps"})
_SPAN = re.compile(r"(?P<low>[0-9]{1,4})(?:-(?P<high>[0-9]{1,4}))?")


MOST_TEXT = 4096
"""No list of a node's GPUs has more characters: what has is nobody's."""

MOST_GPUS = 1024
"""Nor does a node have more GPUs, and instances of them."""


class MappingError(WattkeeperError):
    """It cannot be said which devices a job's GPUs are: nothing is written."""


@dataclass(frozen=True, slots=True)
class GresGpu:
    """One GPU as Slurm counts it: its minor number (None: its ``File`` is no ``nvidiaN``) and file.

    ``slices``: of compute, where it is a MIG instance whose type says so (``1g.10gb``); else 0.
    """

    minor: int | None
    file: str
    share: Sharing
    slices: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that is a job's, or (with ``slices`` of compute) an instance on it."""

    uuid: GpuUuid
    share: Sharing
    slices: int = 0


def parse_slurmd_g(text: str) -> tuple[GresGpu, ...]:
    """The GPUs in the output of ``slurmd -G`` (which is on standard error), in GRES order."""
    lines = [(found["name"], found["type"] or "", found["file"]) for found in _LINE.finditer(text)]
    shared = {file for name, _, file in lines if name in _SHARING}
    return tuple(
        GresGpu(_minor_of(file), file, *_share(kind, file, shared)) for name, kind, file in lines if name == "gpu"
    )


def _share(kind: str, file: str, shared: Collection[str]) -> tuple[Sharing, int]:
    if "nvidia-cap" not in file:
        return (Sharing.SHARED if file in shared else Sharing.WHOLE), 0
    slices = _MIG_TYPE.search(kind)
    return Sharing.SHARED, int(slices["slices"]) if slices else 0


def _minor_of(file: str) -> int | None:
    found = _MINOR.search(file)
    return int(found["minor"]) if found else None


def parse_gpu_list(text: str) -> tuple[int | GpuUuid, ...]:
    """``0,1``, ``0-3`` or ``GPU-1c2d…,GPU-…`` (Slurm 25.11 and later can give UUIDs). Raises MappingError."""
    error = MappingError(f"SLURM_JOB_GPUS='{printable(text, 80)}' is no list of GPUs: nothing is written")
    if len(text) > MOST_TEXT:
        raise error
    found: dict[int | GpuUuid, None] = {}
    for word in filter(None, text.replace(" ", "").split(",")):
        span = _SPAN.fullmatch(word)
        if span:
            found.update(dict.fromkeys(range(int(span["low"]), int(span["high"] or span["low"]) + 1)))
        elif _UUID.fullmatch(word):
            found[GpuUuid(word)] = None
        else:
            raise error
        if len(found) > MOST_GPUS:
            raise error
    return tuple(found)


@dataclass(frozen=True, slots=True)
class GresMap:
    """Which device each GRES index is. ``override`` is the setting ``gpus.map``; ``gres`` None: no slurmd to ask."""

    gpus: Sequence[GpuInfo]
    gres: Sequence[GresGpu] | None = None
    override: Mapping[int, int | GpuUuid] | None = None

    def devices(self, job_gpus: str, visible: str | None) -> dict[GpuUuid, Sharing]:
        """The devices of SLURM_JOB_GPUS, with how each is held. See ``find``."""
        return {device.uuid: device.share for device in self.find(job_gpus, visible)}

    def find(self, job_gpus: str, visible: str | None) -> tuple[Device, ...]:
        """The devices of SLURM_JOB_GPUS, each once. ``visible``: CUDA_VISIBLE_DEVICES of the hook.

        UUIDs in ``visible`` win over the guess index = minor, and over lines of MIG that do not tell their GPU;
        against what slurmd or the settings say otherwise they are a second source, and sources must agree. Raises
        MappingError that names both.
        """
        words = [word for word in (visible or "")[:MOST_TEXT].split(",") if word.startswith(("GPU-", "MIG-"))]
        seen = _once(self._by_uuid(GpuUuid(word), "CUDA_VISIBLE_DEVICES") for word in words)
        if seen and self._needs_uuids(job_gpus):
            return seen
        named = _once(self._named(entry) for entry in parse_gpu_list(job_gpus))
        if seen and {device.uuid for device in named} != {device.uuid for device in seen}:
            source = "gpus.map" if self.override is not None else "slurmd -G"
            text = (
                f"SLURM_JOB_GPUS={printable(job_gpus, 80)} is {', '.join(device.uuid for device in named)} by {source}"
            )
            raise MappingError(f"{text}, but CUDA_VISIBLE_DEVICES says {', '.join(words)}: nothing is written")
        return seen if any(device.slices for device in seen) else named

    def _needs_uuids(self, job_gpus: str) -> bool:
        """True where the numbers are a guess, or lines that do not tell their GPU."""
        if self.override is not None:
            return False
        if self.gres is None:
            return True
        lines = [self.gres[n] for n in parse_gpu_list(job_gpus) if isinstance(n, int) and n < len(self.gres)]
        return any(line.minor is None and "nvidia-cap" in line.file for line in lines)

    def troubles(self) -> tuple[str, ...]:
        """What does not fit between Slurm's list and the driver's, in words; empty where all is well."""
        return tuple(
            f"gres.conf lists {entry.file} as GPU {place}, but the driver has no GPU with that minor number"
            for place, entry in enumerate(self.gres or ())
            if "nvidia-cap" not in entry.file or entry.minor is not None
            if entry.minor is None or not any(gpu.minor == entry.minor for gpu in self.gpus)
        )

    def _named(self, entry: int | GpuUuid) -> Device:
        if isinstance(entry, str):
            return self._by_uuid(entry, "SLURM_JOB_GPUS")
        if self.override is not None:
            if entry not in self.override:
                raise MappingError(f"SLURM_JOB_GPUS has {entry}, which gpus.map lacks: nothing is written")
            return self._by_uuid(self.override[entry], "gpus.map")
        if self.gres is None:
            return self._by_uuid(entry, "SLURM_JOB_GPUS (taken as minor numbers: no slurmd to ask)")
        if entry >= len(self.gres):
            text = f"SLURM_JOB_GPUS has {entry}, but slurmd -G lists only {len(self.gres)} GPUs"
            raise MappingError(f"{text}: nothing is written; restart the agent after a change of gres.conf")
        line = self.gres[entry]
        if line.minor is None:
            raise MappingError(f"GPU {entry} of Slurm is {line.file}, no nvidiaN: nothing is written; set gpus.map")
        return Device(self._present(line.minor, f"File={line.file} of gres.conf").uuid, line.share, line.slices)

    def _by_uuid(self, name: int | GpuUuid, source: str) -> Device:
        """The device of a UUID, its own or a MIG instance's, or of a minor number."""
        gpu = self._present(name, source)
        slices = dict(gpu.instances).get(name, 0) if isinstance(name, str) else 0
        return Device(gpu.uuid, self._share_of(gpu), slices)

    def _present(self, name: int | GpuUuid, source: str) -> GpuInfo:
        old = _OLD_MIG.fullmatch(name) if isinstance(name, str) else None
        names = {name, old["gpu"]} if old else {name}
        for gpu in self.gpus:
            if names & {gpu.minor, gpu.uuid, *(uuid for uuid, _ in gpu.instances)}:
                return gpu
        what = f"minor number {name}" if isinstance(name, int) else printable(name, 80)
        mend = "; restart the agent after a change of MIG instances" if what.startswith("MIG-") else ""
        raise MappingError(f"{source} names {what}, but the driver has no such GPU: nothing is written{mend}")

    def _share_of(self, gpu: GpuInfo) -> Sharing:
        if gpu.instances:
            return Sharing.SHARED
        return next((entry.share for entry in self.gres or () if entry.minor == gpu.minor), Sharing.WHOLE)


def _once(devices: Iterable[Device]) -> tuple[Device, ...]:
    """Each GPU once, in the order they came; the instances on one add up. A slice that is not known hides the sum."""
    found: dict[GpuUuid, list[Device]] = {}
    for device in devices:
        found.setdefault(device.uuid, []).append(device)
    return tuple(
        Device(uuid, same[0].share, sum(device.slices for device in same) if all(d.slices for d in same) else 0)
        for uuid, same in found.items()
    )
