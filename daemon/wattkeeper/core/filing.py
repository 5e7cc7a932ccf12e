"""Finding, among thousands of ``when``, the few that one job may fit, without looking at each.

Each ``when`` is filed under one of its selectors: the one whose patterns the fewest others share, because all of its
selectors have to fit. A pattern is filed under what a text must have for it to fit: a name under itself, ``ml-*``
under its head, ``*-long`` under its tail. So what is found is always more than what fits, and never less.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from wattkeeper.core.schedule import Schedule
from wattkeeper.core.when import Compare, Glob, Hosts, Pattern, Selector, When

MOST_PATTERNS = 64
"""A selector of more names than this is not filed under: its ``when`` would take more room than it saves time."""

_WILD = re.compile(r"[*?\[]")

_Slot = tuple[str, str | int]
"""``exact``, ``head``, ``tail`` or ``within``, and the text that whatever fits must be, begin or end with, or hold.

A number that must be met is ``exact`` too; where nothing is known, the empty text is ``within``.
"""

_Slots = tuple[_Slot, ...]


@dataclass(slots=True)
class Names:
    """Numbers, filed under the patterns of one field."""

    exact: dict[str | int, list[int]] = field(default_factory=dict)
    head: dict[str, list[int]] = field(default_factory=dict)
    tail: dict[str, list[int]] = field(default_factory=dict)
    within: list[tuple[str, int]] = field(default_factory=list)
    lengths: set[int] = field(default_factory=set)  # of the heads and tails

    def add(self, slot: _Slot, number: int) -> None:
        """File a number under one slot."""
        match slot:
            case "head", str(text):
                self.head.setdefault(text, []).append(number)
                self.lengths.add(len(text))
            case "tail", str(text):
                self.tail.setdefault(text, []).append(number)
                self.lengths.add(len(text))
            case "exact", value:
                self.exact.setdefault(value, []).append(number)
            case _, value:
                self.within.append((str(value), number))

    def may_fit(self, value: str | int) -> Iterator[list[int]]:
        """The numbers of all patterns that may fit a value."""
        text = str(value)
        yield self.exact.get(value, [])
        yield [number for part, number in self.within if part in text]
        for length in self.lengths:
            yield self.head.get(text[:length], [])
            yield self.tail.get(text[-length:], [])

    def all(self) -> Iterator[list[int]]:
        """Every number."""
        yield [number for _, number in self.within]
        for filed in (self.exact, self.head, self.tail):
            yield from filed.values()


class Filing:
    """The places of ``whens`` in their list, filed. Equal selectors are one object in what ``whens`` gives back."""

    def __init__(self, whens: Iterable[When]) -> None:
        known: dict[Selector, tuple[Selector, _Slots]] = {}
        self.whens = tuple(_shared(when, known) for when in whens)
        self.always: list[int] = []
        self.fields: dict[str, Names] = {}
        slots = {id(selector): found for selector, found in known.values()}
        uses = Counter((s.field, slot) for when in self.whens for s in when.selectors for slot in slots[id(s)])
        for at, when in enumerate(self.whens):
            narrow = [s for s in when.selectors if slots[id(s)] and s.field != "schedule"]
            if not narrow:
                self.always.append(at)
                continue
            rarest = min(narrow, key=lambda s: max(uses[s.field, slot] for slot in slots[id(s)]))
            names = self.fields.setdefault(rarest.field, Names())
            for slot in slots[id(rarest)]:
                names.add(slot, at)


def folded(name: str, text: str) -> str:
    """A text as it is filed and looked for: models of GPUs fit in any case."""
    return text.lower() if name == "gpu_model" else text


def _shared(when: When, known: dict[Selector, tuple[Selector, _Slots]]) -> When:
    """The same with selectors that were met before in place of their equals."""
    selectors = []
    for selector in when.selectors:
        if selector not in known:
            known[selector] = (selector, _slots(selector))
        selectors.append(known[selector][0])
    negated = when.negated and _shared(when.negated, known)
    return When(tuple(selectors), negated)


def _slots(selector: Selector) -> _Slots:
    """What a selector is filed under; nothing where that does not help."""
    found = dict.fromkeys(slot for pattern in selector.patterns for slot in _slots_of(selector.field, pattern))
    return () if len(found) > MOST_PATTERNS else tuple(found)


def _slots_of(name: str, pattern: Pattern) -> Iterable[_Slot]:
    match pattern:
        case Hosts(names=names):
            return [("exact", host) for host in names]
        case Compare(op="==", number=number):
            return [("exact", number)]
        case Glob(pattern=glob):
            return [_slot_of_glob(folded(name, glob))]
        case Compare() | Schedule():
            return [("within", "")]


def _slot_of_glob(glob: str) -> _Slot:
    wild = _WILD.search(glob)
    if wild is None:
        return "exact", glob
    if wild.start():
        return "head", glob[: wild.start()]
    plain = glob.partition("[")[0]  # what follows may be a set of characters
    parts = re.split(r"[*?]+", plain)
    if parts[-1] and plain == glob:
        return "tail", parts[-1]
    return "within", max(parts, key=len)
