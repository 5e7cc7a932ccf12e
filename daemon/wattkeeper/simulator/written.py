"""What people write in scenarios and on the command line of ``wattkeeper sim``, beyond what policies need."""

import re
from decimal import Decimal

from wattkeeper.simulator.views import FaultKind
from wattkeeper.units import parse_duration, parse_power

_RATIO = re.compile(r"(?P<number>[+-]?[0-9]{1,3}(?:\.[0-9]{1,4})?)(?P<percent> ?%)?", re.ASCII)
_ENERGY = re.compile(r"(?P<number>[+-]?[0-9]{1,9}(?:\.[0-9]{1,6})?) ?(?P<unit>mJ|J|kJ|MJ|Wh|kWh)", re.ASCII)
_ENERGY_SCALE = {"mJ": 1, "J": 1_000, "kJ": 10**6, "MJ": 10**9, "Wh": 3_600_000, "kWh": 3_600_000_000}
_TIMED: tuple[FaultKind, ...] = ("hang", "slow")


def parse_share(text: str) -> float | None:
    """``75%`` or ``75`` as 0.75; None where it is nothing of the kind. May be below 0 or above 1."""
    found = _RATIO.fullmatch(text.strip())
    return None if found is None else float(Decimal(found["number"]) / 100)


def parse_energy(text: str) -> int | None:
    """``5kJ`` or ``-1.2Wh`` in millijoules; None where it is nothing of the kind."""
    found = _ENERGY.fullmatch(text.strip())
    return None if found is None else int(Decimal(found["number"]) * _ENERGY_SCALE[found["unit"]])


def value_form(kind: FaultKind) -> str:
    """What a fault's value looks like; empty: it takes none."""
    if kind in _TIMED:
        return "a time such as 5s"
    return "a power such as 400W" if kind == "oob" else ""


def parse_value(kind: FaultKind, text: str) -> float | None:
    """A fault's value in the unit of ``Simulation.fault``; None where it is nothing of the kind."""
    if kind in _TIMED:
        return parse_duration(text)
    return parse_power(text) if kind == "oob" else None
