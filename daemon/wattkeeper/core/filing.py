"""Finding, among thousands of ``when``, the few that one job may fit, without looking at each.

Each ``when`` is filed under one of its selectors: the one whose patterns the fewest others share, because all of its
selectors have to fit. A pattern is filed under what a text must have for it to fit: a name under itself, ``ml-*``
under its head, ``*-long`` under its tail. So what is found is always more than what fits, and never less.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

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


class Names:
    """Numbers, filed under the patterns of one field."""

    def __init__(self) -> None:
        self._exact: dict[str | int, list[int]] = {}
        self._head: dict[str | int, list[int]] = {}
        self._tail: dict[str | int, list[int]] = {}
        self._within: dict[str | int, list[int]] = {}
        self._kinds = {"exact": self._exact, "head": self._head, "tail": self._tail, "within": self._within}
        self._lengths: set[int] = set()  # of the heads and tails
        self._parts: set[int] = set()  # lengths of what is within

    def add(self, slot: _Slot, number: int) -> None:
        """File a number under one slot."""
        kind, value = slot
        self._kinds[kind].setdefault(value, []).append(number)
        if kind in {"head", "tail"}:
            self._lengths.add(len(str(value)))
        elif kind == "within":
            self._parts.add(len(str(value)))

    def may_fit(self, value: str | int) -> Iterator[list[int]]:
        """The numbers of all patterns that may fit a value."""
        text = str(value)
        yield self._exact.get(value, [])
        for length in self._lengths:
            yield self._head.get(text[:length], [])
            yield self._tail.get(text[-length:], [])
        if len(self._within) < len(text) * len(self._parts):
            yield from (numbers for part, numbers in self._within.items() if str(part) in text)
        else:
            parts = {text[at : at + length] for length in self._parts for at in range(len(text) - length + 1)}
            yield from (self._within[part] for part in parts if part in self._within)

    def may_cover(self, slot: _Slot, text: str) -> Iterator[list[int]]:
        """The numbers of all patterns that are a given one with wildcards, or its beginning and ``*``."""
        yield self._within.get("", [])
        yield self._kinds[slot[0]].get(slot[1], [])
        for length in self._lengths:
            yield self._head.get(text[:length], [])

    def all(self) -> Iterator[list[int]]:
        """Every number."""
        for filed in self._kinds.values():
            yield from filed.values()


class Filing:
    """The places of ``whens`` in their list, filed. Equal selectors are one object in what ``whens`` gives back."""

    def __init__(self, whens: Iterable[When]) -> None:
        known: dict[Selector, tuple[Selector, _Slots]] = {}
        self.whens = tuple(_shared(when, known) for when in whens)
        self.always: list[int] = []
        self.fields: dict[str, Names] = {}
        slots = {id(selector): found for selector, found in known.values()}
        uses = Counter(slot for when in self.whens for s in when.selectors for slot in slots[id(s)])
        for at, when in enumerate(self.whens):
            narrow = [s for s in when.selectors if slots[id(s)]]
            if not narrow:
                self.always.append(at)
                continue
            rarest = min(narrow, key=lambda s: max(uses[slot] for slot in slots[id(s)]))
            names = self.fields.get(rarest.field) or self.fields.setdefault(rarest.field, Names())
            for slot in slots[id(rarest)]:
                names.add(slot, at)

    def may_cover(self, when: When) -> list[int]:
        """The places of those that may fit whatever ``when`` fits, in their order: all that do, and few others.

        It goes by each selector's first pattern, for what ``config.implies`` takes for its cover.
        """
        found = set(self.always)
        for selector in when.selectors:
            names = self.fields.get(selector.field)
            if names is not None:
                found.update(*_covers(names, selector))
        return sorted(found)


def _covers(names: Names, selector: Selector) -> Iterator[list[int]]:
    match selector.patterns:
        case (Glob(pattern=glob), *_):
            text = folded(selector.field, glob)
            slot = _slot_of_glob(text)
            return names.may_fit(text) if slot[0] == "exact" else names.may_cover(slot, text)
        case (Compare(number=number), *_):
            return names.may_fit(number)
        case (Hosts(names=hosts), *_) if hosts:
            return names.may_fit(min(hosts))
        case _:
            return names.all()


def folded(name: str, text: str) -> str:
    """A text as it is filed and looked for: models of GPUs fit in any case."""
    return text.lower() if name == "gpu_model" else text


def _shared(when: When, known: dict[Selector, tuple[Selector, _Slots]]) -> When:
    """The same with selectors that were met before in place of their equals."""
    selectors = []
    for selector in when.selectors:
        found = known.get(selector)
        if found is None:
            found = known[selector] = (selector, _slots(selector))
        selectors.append(found[0])
    return When(tuple(selectors), when.negated and _shared(when.negated, known))


def _slots(selector: Selector) -> _Slots:
    """What a selector is filed under; nothing where that does not help. Schedules are not: when they turn, is told."""
    if selector.field == "schedule":
        return ()
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
    """By its head or tail, whichever is longer, or else by what is longest within."""
    if not _WILD.search(glob):
        return "exact", glob
    parts = re.split(r"[*?]", glob.partition("[")[0])  # what follows it may be a set of characters
    head, tail = parts[0], "" if "[" in glob else parts[-1]
    if head or tail:
        return ("head", head) if len(head) >= len(tail) else ("tail", tail)
    return "within", max(parts, key=len)
