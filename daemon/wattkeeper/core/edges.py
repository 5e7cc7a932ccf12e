"""Whether a decision still holds by the wall clock, whatever that clock has done meanwhile.

A decision holds from the moment for which it was made up to its ``next_change``. Outside of that time it is made
anew from what the clock says now, never from which edges may have passed: a step forward over a whole window, a step
back into one, and a node that slept through one all end in what holds now, and nothing is done twice.
"""

from collections.abc import Iterable


def is_stale(decided_at: float, next_change: float | None, now_at: float) -> bool:
    """True where a decision made for ``decided_at`` says nothing about ``now_at`` any more; Unix seconds.

    ``next_change`` None: time has no part in it, and it never is.
    """
    return next_change is not None and not decided_at <= now_at < next_change


def wait_s(changes: Iterable[float | None], now_at: float, most_s: float) -> float:
    """For how long nothing changes by time: up to the first of ``changes``, at least 0, at most ``most_s`` seconds.

    To be waited on the monotonic clock; ``most_s`` (the tick) is what bounds how late a stepped wall clock is noticed.
    """
    waits = [change - now_at for change in changes if change is not None]
    return max(0.0, min([most_s, *waits]))
