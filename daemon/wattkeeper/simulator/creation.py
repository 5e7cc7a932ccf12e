"""What GPUs are created from: models, limits, gains and MIG instances as the library takes them."""

import ctypes
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Literal

from wattkeeper.simulator.library import SimulatorError
from wattkeeper.simulator.models import DEFAULT_GPUS, Model, parse_selection
from wattkeeper.simulator.structures import MAX_GPUS, CGpuSpec, CModel, CNodeSpec
from wattkeeper.simulator.views import CLOCK_MODES, PROFILES, ClockMode, Instance, Profile
from wattkeeper.text import printable
from wattkeeper.units import Milliwatts, format_power

Sensors = Literal["card", "ideal"]
SENSORS: tuple[Sensors, ...] = ("card", "ideal")

_INSTANCE = re.compile(r"(?:MIG )?(?P<slices>[1-7])g\.(?P<memory>[0-9]{1,4})gb", re.IGNORECASE | re.ASCII)
_MOST_GAIN = 0.5
_NOT_IN_C = frozenset({"aliases"})


def gpu_specs(
    model: str | Model | Sequence[Model], gpus: int | None, limit_mw: Milliwatts | None, gain: float | Sequence[float]
) -> "ctypes.Array[CGpuSpec]":
    """One specification a GPU, by minor number. Raises SimulatorError, and ConfigError for a file of models."""
    chosen = _models(model, gpus)
    gains = [gain] * len(chosen) if isinstance(gain, (int, float)) else list(gain)
    if len(gains) != len(chosen):
        raise SimulatorError(f"{len(gains)} gains are given for {len(chosen)} GPUs (allowed: one for all, or one each)")
    if not all(-_MOST_GAIN <= one <= _MOST_GAIN for one in gains):
        raise SimulatorError(f"no sensor is that wrong: gain {gain} (allowed: -0.5 to 0.5)")
    for one in chosen if limit_mw else ():
        if not one.min_mw <= (limit_mw or 0) <= one.max_mw:
            allowed = f"{format_power(Milliwatts(one.min_mw))} to {format_power(Milliwatts(one.max_mw))}"
            asked = format_power(limit_mw or Milliwatts(0))
            raise SimulatorError(f"a {one.key} takes no limit of {asked} (allowed: {allowed})")
    return (CGpuSpec * len(chosen))(
        *(
            CGpuSpec(model=_structure(one), limit_mw=limit_mw or 0, gain_ppm=round(its * 1_000_000))
            for one, its in zip(chosen, gains, strict=True)
        )
    )


def node_spec(driver: str, profile: Profile, sensors: Sensors, clock: ClockMode, replace: bool) -> CNodeSpec:
    """What is the same for all GPUs. Raises SimulatorError."""
    if not re.fullmatch(r"[0-9][0-9.]{1,22}", driver, re.ASCII):
        raise SimulatorError(f"'{printable(driver, 40)}' is no driver's version (allowed: such as 580.65.06)")
    if sensors not in SENSORS:
        raise SimulatorError(f"no sensors {sensors!r} (allowed: {', '.join(SENSORS)})")
    return CNodeSpec(
        driver_version=driver.encode(),
        profile=PROFILES.index(profile),
        ideal_sensors=sensors == "ideal",
        manual_clock=CLOCK_MODES.index(clock),
        replace=replace,
    )


def named_instances(instances: Sequence[Instance | str], memory_mib: int) -> tuple[Instance, ...]:
    """MIG instances, of which NVIDIA's names (``1g.10gb``) count memory in shares of what is on the box.

    Raises SimulatorError.
    """
    nominal_gib = -(-memory_mib // 1024)
    parts: list[Instance] = []
    for one in instances:
        if isinstance(one, Instance):
            parts.append(one)
            continue
        found = _INSTANCE.fullmatch(one.strip())
        if found is None:
            raise SimulatorError(f"'{printable(one, 40)}' is no MIG instance (allowed: such as 1g.10gb or 3g.40gb)")
        parts.append(Instance(int(found["slices"]), memory_mib * int(found["memory"]) // nominal_gib))
    return tuple(parts)


def _models(model: str | Model | Sequence[Model], gpus: int | None) -> tuple[Model, ...]:
    if isinstance(model, str):
        return parse_selection(model, gpus)
    if isinstance(model, Model):
        chosen: tuple[Model, ...] = (model,) * (DEFAULT_GPUS if gpus is None else gpus)
    else:
        chosen = tuple(model)
    if not 0 <= len(chosen) <= MAX_GPUS or (gpus is not None and gpus != len(chosen)):
        raise SimulatorError(
            f"{len(chosen)} models and {gpus} GPUs: no such node can be simulated (allowed: 0 to {MAX_GPUS} GPUs)"
        )
    return chosen


def _structure(model: Model) -> CModel:
    figures = {field.name: getattr(model, field.name) for field in fields(model) if field.name not in _NOT_IN_C}
    return CModel(**figures | {"key": model.key.encode(), "name": model.name.encode()})
