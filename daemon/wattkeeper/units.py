"""Power and energy as people write them, and as the code holds them.

Inside the code power is an integer number of milliwatts and energy an integer number of millijoules, because
NVML counts in these and because sums of integers are exact. People and YAML write ``250W``, ``0.25kW``,
``70%`` and ``1.2kWh``; Prometheus wants base units. Every conversion is in this file.
"""

import re
from decimal import Decimal
from typing import NewType

Milliwatts = NewType("Milliwatts", int)
Millijoules = NewType("Millijoules", int)
BasisPoints = NewType("BasisPoints", int)
"""Hundredths of a percent: 70 % is 7000."""

_POWER_SCALE = {"mw": 1, "w": 1_000, "": 1_000, "kw": 1_000_000}
POWER = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)\s?(?P<unit>[km]?w|)", re.IGNORECASE | re.ASCII)
PERCENT = re.compile(r"(?P<number>[0-9]{1,4}(?:\.[0-9]{1,2})?)\s?%", re.ASCII)
DURATION = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?)(?P<unit>ms|s|m|h|d)", re.ASCII)
_DURATION_SCALE = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}


def parse_power(text: str) -> Milliwatts | None:
    """``250W``, ``250`` (watts), ``0.25kW`` or ``250000mW`` as milliwatts; None where it is nothing of the kind.

    Units are read in any case, and zero watts is not a power limit.
    """
    found = POWER.fullmatch(text.strip())
    if found is None:
        return None
    exact = Decimal(found["number"]) * _POWER_SCALE[found["unit"].lower()]
    return Milliwatts(int(exact)) if exact >= 1 else None


def parse_percent(text: str) -> BasisPoints | None:
    """``70%`` or ``66.67%`` as basis points; None where it is nothing of the kind, or is 0 %."""
    found = PERCENT.fullmatch(text.strip())
    if found is None:
        return None
    points = int(Decimal(found["number"]) * 100)
    return BasisPoints(points) if points > 0 else None


def parse_duration(text: str) -> float | None:
    """``500ms``, ``5s``, ``10m``, ``2h`` or ``1d`` in seconds; None where it is nothing of the kind."""
    found = DURATION.fullmatch(text.strip())
    if found is None:
        return None
    return float(Decimal(found["number"]) * _DURATION_SCALE[found["unit"]])


def percent_of(points: BasisPoints, whole: Milliwatts) -> Milliwatts:
    """That share of a power, rounded down to the milliwatt so that a percentage never gives more than it says."""
    return Milliwatts(whole * points // 10_000)


def format_power(power: Milliwatts) -> str:
    """Milliwatts as people read them: ``250 W``, ``187.5 W``."""
    return f"{Decimal(power) / 1_000:f} W" if power % 1_000 else f"{power // 1_000} W"


def format_percent(points: BasisPoints) -> str:
    """Basis points as people read them: ``70 %``, ``66.67 %``."""
    return f"{points / 100:g} %"


def format_energy(energy: Millijoules) -> str:
    """Millijoules as people read them: ``950 J``, ``12.3 kJ``, ``1.20 kWh``."""
    joules = energy / 1_000
    if joules < 1_000:
        return f"{joules:.0f} J"
    if joules < 1_000_000:
        return f"{joules / 1_000:.1f} kJ"
    return f"{joules / 3_600_000:.2f} kWh"


def format_duration(seconds: float) -> str:
    """Seconds as people read them: ``45 s``, ``12 min``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def watts(power: Milliwatts) -> float:
    """Milliwatts in Prometheus' base unit, watts."""
    return power / 1_000


def joules(energy: Millijoules) -> float:
    """Millijoules in Prometheus' base unit, joules."""
    return energy / 1_000


def kilowatt_hours(energy: Millijoules) -> float:
    """Millijoules in the unit that people are billed by."""
    return energy / 3_600_000_000
