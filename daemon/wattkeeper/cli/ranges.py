"""``wattkeeper check --models``: caps that some model of GPU cannot take as they are."""

from collections.abc import Iterator

from wattkeeper.config.checks import caps_of
from wattkeeper.core.amounts import amount_mw, cap_amount
from wattkeeper.core.match import match
from wattkeeper.core.policy import Cap, Keyword, Policy, When
from wattkeeper.errors import Problem
from wattkeeper.model import Conditions, GpuContext, GpuInfo, GpuUuid
from wattkeeper.simulator.models import Lack, Model, shipped_models
from wattkeeper.units import Milliwatts, format_power

_MOST_NAMES = 4
_MODEL = frozenset({"gpu_model"})


def out_of_range(policy: Policy) -> Iterator[Problem]:
    """A warning for each cap that is outside of what some known model takes, on which it can come to stand. Percentages
    are of that model's default limit. A profile is told of once, and again where a rule narrows the models."""
    gpus = [_gpu(model) for model in shipped_models().values() if not model.lacks & Lack.LIMIT]
    for path, cap, when in caps_of(policy):
        if cap.source is None or (cap.profile and "gpu_model" not in when.fields()):
            continue
        outside = [text for gpu in gpus if _stands(when, gpu.info) and (text := _outside(cap, gpu))]
        if not outside:
            continue
        more = f" and {len(outside) - _MOST_NAMES} more" if len(outside) > _MOST_NAMES else ""
        text = f"is clamped on {_count(len(outside))}: {'; '.join(outside[:_MOST_NAMES])}{more}"
        yield Problem(cap.source.file, cap.source.line, path, text, warning=True)


def _gpu(model: Model) -> GpuContext:
    default, low, high = (Milliwatts(mw) for mw in (model.default_mw, model.min_mw, model.max_mw))
    return GpuContext(GpuInfo(GpuUuid(model.key), 0, 0, model.name, default, low, high), default)


def _stands(when: When, info: GpuInfo) -> bool:
    """Whether what a ``when`` says of models, apart from all else, lets it fit that one."""
    negated = when.negated if when.negated and when.negated.fields() <= _MODEL else None
    models = When(tuple(selector for selector in when.selectors if selector.field == "gpu_model"), negated)
    return match(models, None, info, Conditions(0.0)).value is True


def _outside(cap: Cap, gpu: GpuContext) -> str:
    """``NVIDIA H100 PCIe (175 W, takes 200 W to 350 W)`` where it is; keywords never are."""
    amount = cap_amount(cap, gpu)
    limit_mw = amount_mw(amount, gpu)
    info = gpu.info
    if isinstance(amount, Keyword) or limit_mw is None or info.min_mw <= limit_mw <= info.max_mw:
        return ""
    span = f"{format_power(info.min_mw)} to {format_power(info.max_mw)}"
    return f"{info.model} ({format_power(limit_mw)}, takes {span})"


def _count(models: int) -> str:
    return f"{models} known model{'' if models == 1 else 's'}"
