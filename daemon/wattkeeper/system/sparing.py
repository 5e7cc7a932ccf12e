"""Saying in the log what strangers can bring about, without letting them fill it."""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass

EVERY_S = 60.0
MOST_REMEMBERED = 256
"""So many different things are told apart at a time; what more there is counts as one."""


@dataclass(slots=True)
class _Said:
    at_mono: float
    kept_back: int = 0


class Sparing:
    """Says each thing at once the first time, and then at most every ``every_s`` seconds, with how often it was so."""

    def __init__(self, log: logging.Logger, mono: Callable[[], float], every_s: float = EVERY_S) -> None:
        """``mono``: seconds of a clock that never goes back."""
        self._log = log
        self._mono = mono
        self._every_s = every_s
        self._said: dict[Hashable, _Said] = {}
        self._unnamed = _Said(float("-inf"))

    def warn(self, what: Hashable, text: str) -> bool:
        """Log ``text`` as a warning, if ``what`` (the kind of thing, and whose doing) may be said now; True if so.

        Where more different things come than are remembered, all new ones together are said as often as one.
        """
        now = self._mono()
        said = self._said.get(what)
        if said is None:
            said = self._begin(what, now)
        if now - said.at_mono < self._every_s:
            said.kept_back += 1
            return False
        more = f" ({said.kept_back} more times since it was said last)" if said.kept_back else ""
        self._log.warning("%s%s", text, more)
        said.at_mono, said.kept_back = now, 0
        return True

    def _begin(self, what: Hashable, now: float) -> _Said:
        if len(self._said) >= MOST_REMEMBERED:
            stale = [name for name, said in self._said.items() if now - said.at_mono >= self._every_s]
            for name in stale:
                del self._said[name]
            if not stale:
                return self._unnamed
        return self._said.setdefault(what, _Said(float("-inf")))
