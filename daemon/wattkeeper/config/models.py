"""Power limits that models of GPU are known to take, to doubt a cap before it meets the device.

Only for warnings: the range that counts is the one the device itself tells. Sources: the ranges that
``nvidia-smi -q -d POWER`` has shown on such boards, and NVIDIA's data sheets for the board's power by design;
``simulator/models.yaml`` names each. A table of its own, because the agent reads policies, and not that file.
"""

from dataclasses import dataclass

from wattkeeper.core.match import fits_model
from wattkeeper.units import Milliwatts


@dataclass(frozen=True, slots=True)
class KnownRange:
    """A model, by NVML's name for it, and the lowest and highest limit it is known to take."""

    name: str
    min_mw: Milliwatts
    max_mw: Milliwatts


def _known(name: str, least_watts: int, most_watts: int) -> KnownRange:
    return KnownRange(name, Milliwatts(least_watts * 1_000), Milliwatts(most_watts * 1_000))


KNOWN = (
    _known("Tesla V100-PCIE-16GB", 100, 250),
    _known("Tesla V100-PCIE-32GB", 100, 250),
    _known("Tesla V100-SXM2-16GB", 150, 300),
    _known("Tesla V100-SXM2-32GB", 150, 300),
    _known("Tesla V100-SXM3-32GB", 100, 350),
    _known("NVIDIA A100-PCIE-40GB", 150, 250),
    _known("NVIDIA A100-SXM4-40GB", 100, 400),
    _known("NVIDIA A100-SXM4-80GB", 100, 500),
    _known("NVIDIA A40", 100, 300),
    _known("NVIDIA H100 80GB HBM3", 200, 700),
    _known("NVIDIA H100 PCIe", 200, 350),
    _known("NVIDIA H100 NVL", 200, 400),
    _known("NVIDIA GH200 480GB", 100, 900),
    _known("Quadro RTX 6000", 100, 260),
)


def range_of(glob: str, narrowed: tuple[str, ...] = ()) -> KnownRange | None:
    """The range of all known models together that a glob fits, and one of ``narrowed`` if there are any.

    None where no known model fits, or where nothing narrows the models down (the glob ``*`` alone).
    """
    if set(glob) <= {"*"} and not narrowed:
        return None
    found = [
        known
        for known in KNOWN
        if fits_model(glob, known.name) and (not narrowed or any(fits_model(n, known.name) for n in narrowed))
    ]
    if not found:
        return None
    name = found[0].name if len(found) == 1 else f"{found[0].name} (and {len(found) - 1} more)"
    return KnownRange(name, min(k.min_mw for k in found), max(k.max_mw for k in found))
