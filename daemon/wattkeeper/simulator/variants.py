"""Simulated libraries of older drivers: they lack the functions and the fields that those lack."""

from pathlib import Path

from wattkeeper.simulator.library import SimulatorError, find_library

_HERE = Path(__file__).parent


def drivers() -> tuple[str, ...]:
    """The branches of driver that there is an older library of, such as ``525``, the oldest first."""
    return tuple(sorted(path.stem.partition("-")[2] for path in _HERE.glob("names-*.txt")))


def _check(driver: str) -> None:
    if driver not in drivers():
        raise SimulatorError(f"no older driver {driver!r} to pass for (allowed: {', '.join(drivers())})")


def library_for(driver: str) -> Path:
    """The library of a driver's branch. Raises SimulatorError where there is none such, or none was built."""
    _check(driver)
    newest = find_library()
    path = newest.parent / f"driver-{driver}" / newest.name
    if not path.is_file():
        raise SimulatorError(f"there is no {path} (mend: install wattkeeper again)")
    return path


def version_of(driver: str) -> str:
    """The version that a branch's driver says it has, such as ``525.85.12``: the state has to say the same.

    Raises SimulatorError where there is none such.
    """
    _check(driver)
    with (_HERE / f"names-{driver}.txt").open() as names:
        return names.readline().partition(" driver ")[2].partition(";")[0]
