"""What can go wrong with a device, by what the caller does about it."""

from enum import StrEnum


class Kind(StrEnum):
    """What the caller does about a device error."""

    PERMISSION = "permission"  # tell the admin; trying again does not help
    UNSUPPORTED = "unsupported"  # this card has no such thing
    INVALID = "invalid"  # the value is outside of what the device takes
    LOST = "lost"  # the GPU fell off the bus or wants a reset
    NO_DRIVER = "no_driver"  # no library or no driver; open it again later
    TIMEOUT = "timeout"  # the call did not come back in time
    REPLACED = "replaced"  # a newer target took this one's place in the queue
    NOT_TAKEN = "not_taken"  # the driver said yes and the limit reads otherwise
    STATE = "state"  # the baseline cannot be saved or read: nothing is written
    NO_ACTUATOR = "no_actuator"  # nobody answers who may write limits; ask again on the next tick
    AGAIN = "again"  # anything else: try on the next tick


class DeviceError(Exception):
    """A device did not do what it was asked: which one, what was tried, and the mend, in one line."""

    def __init__(self, kind: Kind, device: str, tried: str, mend: str = "") -> None:
        super().__init__(f"{device}: {tried}" + (f"; {mend}" if mend else ""))
        self.kind, self.device, self.tried, self.mend = kind, device, tried, mend
