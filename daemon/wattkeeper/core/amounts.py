"""From what a policy says (watts, a percentage, a keyword) to milliwatts on one GPU."""

from wattkeeper.core.match import fits_model
from wattkeeper.core.policy import Amount, Cap, Keyword, Percent, Watts
from wattkeeper.model import GpuContext
from wattkeeper.units import Milliwatts, format_percent, format_power, percent_of


def amount_mw(amount: Amount, gpu: GpuContext) -> Milliwatts | None:
    """Milliwatts of an amount on that GPU; None where it takes the baseline and that is not known."""
    match amount:
        case Watts(limit_mw):
            return limit_mw
        case Percent(points):
            return percent_of(points, gpu.info.default_mw)
        case Keyword.BASELINE:
            return gpu.baseline_mw
        case Keyword.DEFAULT:
            return gpu.info.default_mw
        case Keyword.MIN:
            return gpu.info.min_mw
        case Keyword.MAX:
            return gpu.info.max_mw


def cap_amount(cap: Cap, gpu: GpuContext) -> Amount:
    """The amount a cap comes to for this model of GPU: the first glob that fits, any case, else the baseline."""
    for pattern, amount in cap.choices:
        if fits_model(pattern, gpu.info.model):
            return amount
    return Keyword.BASELINE


def cap_mw(cap: Cap, gpu: GpuContext) -> Milliwatts | None:
    """Milliwatts of a cap on that GPU; None where it takes the baseline and that is not known."""
    return amount_mw(cap_amount(cap, gpu), gpu)


def highest_mw(gpu: GpuContext) -> Milliwatts:
    """The most that any cap may come to: the device's maximum, and the baseline unless the settings exceed it."""
    if gpu.baseline_mw is None or gpu.exceed_baseline:
        return gpu.info.max_mw
    return max(gpu.info.min_mw, min(gpu.info.max_mw, gpu.baseline_mw))


def describe_cap(cap: Cap, gpu: GpuContext) -> str:
    """A cap as written and what it comes to: ``eco = 60 % of the default 700 W = 420 W``."""
    amount = cap_amount(cap, gpu)
    value = amount_mw(amount, gpu)
    parts = [cap.profile] if cap.profile else []
    match amount:
        case Percent(points):
            parts.append(f"{format_percent(points)} of the default {format_power(gpu.info.default_mw)}")
        case Keyword():
            parts.append(amount.value)
        case Watts():
            pass
    parts.append("not known yet" if value is None else format_power(value))
    return " = ".join(parts)
