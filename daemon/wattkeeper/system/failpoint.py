"""Named places at which a test lets the agent be killed: what a crash there leaves must be right. For tests only.

``WATTKEEPER_FAILPOINT=ledger.committed`` in the environment kills the process with SIGKILL when it first comes to that
place, ``ledger.committed:3`` when it comes there for the third time. Without the variable a place costs one comparison.
"""

import os
import signal
from itertools import count

VARIABLE = "WATTKEEPER_FAILPOINT"

_NAME, _, _TIMES = os.environ.get(VARIABLE, "").partition(":")
_DEADLY = int(_TIMES) if _TIMES.isdecimal() else 1
_VISITS = count(1)


def failpoint(name: str) -> None:
    """Die here, at once and with nothing cleaned up, if this is the place that the environment names."""
    if _NAME and name == _NAME and next(_VISITS) == _DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
