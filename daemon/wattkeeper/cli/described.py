"""A GPU from its model's name, for decisions without one."""

from collections.abc import Iterator, Mapping

from wattkeeper.config.models import KNOWN, KnownRange
from wattkeeper.config.settings import GpuSettings
from wattkeeper.core.match import fits_model
from wattkeeper.errors import WattkeeperError
from wattkeeper.model import GpuContext, GpuInfo, GpuUuid
from wattkeeper.simulator.models import shipped_models
from wattkeeper.text import printable
from wattkeeper.units import Milliwatts, format_power

_SHORT = {
    "h100": "NVIDIA H100 80GB HBM3",
    "h100-pcie": "NVIDIA H100 PCIe",
    "a100": "NVIDIA A100-SXM4-80GB",
    "v100": "Tesla V100-SXM2-16GB",
    "v100-pcie": "Tesla V100-PCIE-16GB",
}
"""The names that `wattkeeper sim` has for the models which it can simulate."""


def gpu_context(model: str, limits: Mapping[str, int | None], settings: GpuSettings) -> GpuContext:
    """A GPU of that model. ``limits``, in milliwatts, by ``default``, ``min``, ``max`` and ``baseline``, win over
    what is known of the model. Raises WattkeeperError where the model is not known and not all limits are given."""
    known = _known(model)
    if known is None:
        default, low, high = limits["default"], limits["min"], limits["max"]
        if default is None or low is None or high is None:
            raise WattkeeperError(_unknown(model))
        name = model
    else:
        name = known.name
        low = limits["min"] or known.min_mw
        high = limits["max"] or known.max_mw
        default = limits["default"] or min(_default_mw(known), Milliwatts(high))
    if not low <= default <= high:
        span = f"{format_power(Milliwatts(low))} to {format_power(Milliwatts(high))}"
        raise WattkeeperError(f"the default limit {format_power(Milliwatts(default))} is outside of {span}")
    info = GpuInfo(GpuUuid("GPU-described"), 0, 0, name, Milliwatts(default), Milliwatts(low), Milliwatts(high))
    baseline = limits["baseline"] or settings.declared_mw(info) or default
    return GpuContext(info, Milliwatts(baseline), settings.exceed_baseline)


def _known(model: str) -> KnownRange | None:
    """The known model of that name or glob. Raises WattkeeperError where several with different limits fit."""
    name = _SHORT.get(model.lower(), model)
    models = {known.name: known for known in (*_simulated(), *KNOWN)}.values()
    exact = [known for known in models if known.name.lower() == name.lower()]
    patterns = (name, f"* {name}*", f"*{name}*")  # H200 is a word of NVIDIA H200, and a part of GH200
    found = ([known for known in models if fits_model(pattern, known.name)] for pattern in patterns)
    fits = exact or next(filter(None, found), [])
    if len({(known.min_mw, known.max_mw) for known in fits}) > 1:
        names = ", ".join(known.name for known in fits)
        raise WattkeeperError(f"several models fit '{printable(model, 60)}': {names}: name one of them")
    return fits[0] if fits else None


def _simulated() -> Iterator[KnownRange]:
    """The models that `wattkeeper sim` can simulate, whose figures have their sources."""
    for model in shipped_models().values():
        yield KnownRange(model.name, Milliwatts(model.min_mw), Milliwatts(model.max_mw))


def _default_mw(known: KnownRange) -> Milliwatts:
    """The limit that such a board has to begin with: of most it is the highest."""
    found = (model.default_mw for model in shipped_models().values() if model.name == known.name)
    return Milliwatts(next(found, known.max_mw))


def _unknown(model: str) -> str:
    names = ", ".join(known.name for known in KNOWN)
    return (
        f"no limits are known of the model '{printable(model, 60)}': give --default, --min and --max (known: {names})"
    )
