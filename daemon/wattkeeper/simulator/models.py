"""Models of GPU as data: ``models.yaml``, and files like it that people write for boards it lacks.

Each figure there bears its source. What YAML says in units of people, ``Model`` holds in those of ``struct wk_model``
(models.h). Nothing is read before someone asks, for every program that opens simulated GPUs imports this.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from functools import cache
from pathlib import Path
from types import MappingProxyType

from wattkeeper.simulator.library import MAX_GPUS, SimulatorError
from wattkeeper.text import printable

SHIPPED = Path(__file__).with_name("models.yaml")
DEFAULT_GPUS = 4
MAX_KEY_BYTES = 23
MAX_NAME_BYTES = 63

ARCHITECTURES = {"volta": 5, "turing": 6, "ampere": 7, "ada": 8, "hopper": 9, "blackwell": 10}
BRANDS = {"quadro": 1, "tesla": 2, "geforce": 5, "titan": 6, "quadro-rtx": 12, "nvidia-rtx": 13, "nvidia": 14}


class Lack(IntFlag):
    """What a board or its driver does not have: ``enum wk_lack``."""

    ENERGY = 1 << 0
    LIMIT = 1 << 1
    ECC = 1 << 2
    FAN = 1 << 3
    VIOLATIONS = 1 << 4
    ACCOUNTED_USE = 1 << 5


NOTHING = Lack(0)
LACKS = {lack.name.lower().replace("_", "-"): lack for lack in Lack if lack.name}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """``struct wk_model``, field by field and in its units; models.h says what each means."""

    key: str
    name: str

    default_mw: int
    min_mw: int
    max_mw: int
    module_default_mw: int = 0
    module_min_mw: int = 0
    module_max_mw: int = 0

    idle_mw: int
    static_mw: int
    peak_mw: int
    companion_mw: int = 0
    voltage_floor_bp: int
    overshoot_bp: int = 0

    sm_clock_mhz: int
    min_clock_mhz: int
    memory_clock_mhz: int
    memory_mib: int

    ambient_mc: int
    resistance_uc: int
    thermal_ms: int
    slowdown_c: int
    shutdown_c: int

    power_update_ms: int
    power_window_ms: int = 0
    instant_window_ms: int = 0
    average_window_ms: int = 0
    energy_update_ms: int

    pci_id: int
    architecture: int
    compute_major: int
    compute_minor: int
    brand: int
    mig_slices: int = 0
    lacks: Lack = NOTHING

    aliases: tuple[str, ...] = ()


@cache
def shipped_models() -> Mapping[str, Model]:
    """The models of ``models.yaml``, by key, in its order."""
    return MappingProxyType({model.key: model for model in load_models(SHIPPED)})


def find_model(name: str) -> Model:
    """The shipped model of that key or alias, in any case. Raises SimulatorError."""
    names = {known.lower(): model for model in shipped_models().values() for known in (model.key, *model.aliases)}
    found = names.get(name.lower())
    if found is None:
        known = ", ".join("/".join((model.key, *model.aliases)) for model in shipped_models().values())
        raise SimulatorError(f"no model '{printable(name, 60)}' (allowed: {known}, or the path of a YAML file)")
    return found


def load_models(path: Path) -> tuple[Model, ...]:
    """The models of a file in the format of ``models.yaml``, in its order; naming sources is up to its author.

    Raises ``ConfigError`` with every mistake at once.
    """
    from wattkeeper.simulator.model_file import read_models  # reads YAML

    return read_models(path)


def parse_selection(text: str, gpus: int | None) -> tuple[Model, ...]:
    """The models of a node's GPUs, by minor number.

    ``H100`` (``gpus`` of them, ``DEFAULT_GPUS`` where that is None), ``H100:2,A100:2`` as in Slurm's GRES, or paths
    of YAML files in place of names: each model of a file once, or as often as the count says. Raises SimulatorError,
    and ``ConfigError`` for a file's mistakes.
    """
    parts = [_counted(part.strip()) for part in text.split(",")]
    chosen: list[Model] = []
    for what, wanted in parts:
        models = load_models(Path(what)) if _is_path(what) else (find_model(what),)
        otherwise = 1
        if len(parts) == len(models) == 1:
            otherwise = DEFAULT_GPUS if gpus is None else gpus
        count = otherwise if wanted is None else wanted
        chosen += [model for model in models for _ in range(min(count, MAX_GPUS + 1))]
    if len(chosen) > MAX_GPUS:
        raise SimulatorError(f"a simulated node has 0 to {MAX_GPUS} GPUs, not more")
    if gpus is not None and len(chosen) != gpus:
        raise SimulatorError(f"'{printable(text, 60)}' is {len(chosen)} GPUs, not {gpus} (mend: say only one of them)")
    return tuple(chosen)


def _counted(part: str) -> tuple[str, int | None]:
    """``H100:2`` as ``H100`` and 2. Raises SimulatorError."""
    what, colon, count = part.rpartition(":")
    if not colon or (_is_path(part) and not count.isdecimal()):
        return part, None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", count, re.ASCII):
        text = f"'{printable(part, 60)}': '{printable(count, 20)}' is not a number of GPUs"
        raise SimulatorError(f"{text} (allowed: 1 to {MAX_GPUS})")
    return what, int(count)


def _is_path(what: str) -> bool:
    return "/" in what or what.endswith((".yaml", ".yml"))
