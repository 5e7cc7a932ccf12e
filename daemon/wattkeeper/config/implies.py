"""Whether one ``when`` is sure to fit whatever another fits. Says yes only where it is proven; never guesses.

Absent fields take part: a selector on an absent field is false, so nothing follows about it.
"""

from wattkeeper.core.match import compare, fits_glob
from wattkeeper.core.policy import Compare, Glob, Hosts, Pattern, Selector, When

_META = frozenset("*?[")


class Implications:
    """``implies`` for many ``when`` that share selectors (as one object: see ``Filing``): each pair is compared once.

    What it has compared must live as long as it does.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], bool] = {}

    def implies(self, left: When, right: When) -> bool:
        """True only if every job on every GPU that ``left`` fits is fitted by ``right`` too."""
        for other in right.selectors:
            for mine in left.selectors:
                if mine is other or (mine.field == other.field and self._selector_implies(mine, other)):
                    break
            else:
                return False
        if right.negated is None:
            return True
        # not N(right) follows from not N(left) where N(right) implies N(left)
        return left.negated is not None and self.implies(right.negated, left.negated)

    def _selector_implies(self, left: Selector, right: Selector) -> bool:
        pair = id(left), id(right)
        found = self._seen.get(pair)
        if found is None:
            found = self._seen[pair] = _selector_implies(left, right)
        return found


def implies(left: When, right: When) -> bool:
    """True only if every job on every GPU that ``left`` fits is fitted by ``right`` too."""
    return Implications().implies(left, right)


def never(when: When) -> bool:
    """True only if no job on any GPU can fit: what ``not`` excludes follows from the rest."""
    return when.negated is not None and implies(When(when.selectors), when.negated)


def _selector_implies(left: Selector, right: Selector) -> bool:
    if left.field != right.field:
        return False
    if any(isinstance(pattern, Compare) for pattern in (*left.patterns, *right.patterns)):
        return _counts_imply(left.patterns, right.patterns)
    fold = left.field == "gpu_model"
    return all(_covered(pattern, right.patterns, fold) for pattern in left.patterns)


def _counts_imply(left: tuple[Pattern, ...], right: tuple[Pattern, ...]) -> bool:
    """Every number that fits one of ``left`` fits one of ``right``.

    Between two neighbouring bounds nothing changes, so the bounds and their neighbours stand for all numbers.
    """
    mine = [p for p in left if isinstance(p, Compare)]
    others = [p for p in right if isinstance(p, Compare)]
    if len(mine) != len(left) or len(others) != len(right):
        return False
    points = {p.number + step for p in (*mine, *others) for step in (-1, 0, 1)}
    return all(
        any(compare(p.op, point, p.number) for p in others)
        for point in points
        if any(compare(p.op, point, p.number) for p in mine)
    )


def _covered(pattern: Pattern, by: tuple[Pattern, ...], fold: bool) -> bool:
    """Whatever fits ``pattern`` fits one of ``by``."""
    globs = [p.pattern.lower() if fold else p.pattern for p in by if isinstance(p, Glob)]
    names = frozenset[str]().union(*(p.names for p in by if isinstance(p, Hosts)))
    if isinstance(pattern, Hosts):
        return all(name in names or any(fits_glob(glob, name) for glob in globs) for name in pattern.names)
    if not isinstance(pattern, Glob):
        return pattern in by
    mine = pattern.pattern.lower() if fold else pattern.pattern
    if not _META & set(mine):
        return mine in names or any(fits_glob(glob, mine) for glob in globs)
    return any(_glob_implies(mine, glob) for glob in globs)


def _glob_implies(left: str, right: str) -> bool:
    """For a pattern ``left``: the same, everything, or ``prefix*`` where ``left`` begins so."""
    if left == right or right == "*":
        return True
    head = right[:-1]
    return right.endswith("*") and not _META & set(head) and left.startswith(head)
