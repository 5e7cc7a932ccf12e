"""What to do about a limit that somebody else has changed on a GPU that the agent has written."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

WINDOW_S = 600.0
LOSSES_BEFORE_YIELDING = 3


class Cause(StrEnum):
    """Why a limit is not what the agent set."""

    WRITER = "writer"  # another program set it
    RESET = "reset"  # the driver was reloaded or the GPU reset: the limit went back by itself


class Reaction(StrEnum):
    """What the agent did about it: the ``outcome`` label of ``drift_total``."""

    REPAIRED = "repaired"
    REPORTED = "reported"
    YIELDED = "yielded"


@dataclass(frozen=True, slots=True)
class DriftHistory:
    """When, on the monotonic clock, this GPU was last lost to another writer, and whether the agent gave it up."""

    losses_mono: tuple[float, ...] = ()
    yielded: bool = False


def react(
    history: DriftHistory, now_mono: float, cause: Cause, setting: Literal["repair", "report", "yield"]
) -> tuple[Reaction, DriftHistory]:
    """Repair, report or give up, and the history after it.

    A reset is repaired unless the site only wants reports: nobody is there to fight. A GPU lost to another
    writer for the fourth time in ten minutes is given up until a new job, or an admin's ``resume``.
    """
    if setting == "report":
        return Reaction.REPORTED, history
    if history.yielded:
        return Reaction.YIELDED, history
    if cause is Cause.RESET:
        return Reaction.REPAIRED, history
    recent = tuple(at for at in history.losses_mono if now_mono - at < WINDOW_S)
    if setting == "yield" or len(recent) >= LOSSES_BEFORE_YIELDING:
        return Reaction.YIELDED, DriftHistory(recent, yielded=True)
    return Reaction.REPAIRED, DriftHistory((*recent, now_mono))
