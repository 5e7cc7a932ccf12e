"""Checks of a whole policy: what can never come to pass is an error, what is probably not meant a warning."""

from collections.abc import Callable, Iterator
from datetime import UTC

from wattkeeper.config.implies import Implications, never
from wattkeeper.config.models import range_of
from wattkeeper.core.policy import Amount, Cap, Ceiling, Glob, Keyword, Percent, Policy, Rule, Watts, When
from wattkeeper.core.schedule import Schedule
from wattkeeper.errors import Problem
from wattkeeper.units import format_power

USERS_CHOOSE = frozenset({"partition", "constraint", "job_name", "gpus", "num_nodes"})
"""Fields that a job's owner sets as they like; accounts, QOS and reservations are granted to them by the site."""

Part = Rule | Ceiling


def errors_of(policy: Policy, sound: Callable[[Part], bool]) -> Iterator[Problem]:
    """Rules that no job can reach and bounds that cross. Parts that are not ``sound`` (read whole) are left out."""
    known = Implications()
    for at, rule in enumerate(policy.rules):
        if not sound(rule):
            continue
        text = _why_unreachable(policy, at, sound, known)
        if text:
            yield Problem(rule.source.file, rule.source.line, f"caps[{rule.name}]", text)
        if rule.requests and _surely_more(rule.requests.min, rule.requests.max):
            low, high = rule.requests.min, rule.requests.max
            line = low.source.line if low.source else rule.source.line
            path = f"caps[{rule.name}].requests"
            yield Problem(rule.source.file, line, path, f"min ({low.text}) is above max ({high.text})")
    for ceiling in policy.ceilings:
        if sound(ceiling) and never(ceiling.when):
            yield Problem(ceiling.source.file, ceiling.source.line, f"ceilings[{ceiling.name}]", _NEVER)


def warnings_of(policy: Policy) -> Iterator[Problem]:
    """Caps outside of a known model's range, and rules by which users can choose to have more power."""
    yield from out_of_known_range(policy)
    known = Implications()
    for at in range(len(policy.rules)):
        yield from _more_by_choice(policy, at, known)
    known_times: dict[Schedule, str | None] = {}
    for section, parts in (("caps", policy.rules), ("ceilings", policy.ceilings)):
        for part in parts:
            yield from _constant(f"{section}[{part.name}].when.schedule", part, known_times)


def out_of_known_range(policy: Policy) -> Iterator[Problem]:
    """Caps in watts that none of the known models takes which their own text, or a ``when``, names."""
    for path, cap, when in caps_of(policy):
        yield from _out_of_range(path, cap, when)


_NEVER = "never matches: what `not` excludes is all that the rest selects"


def _why_unreachable(policy: Policy, at: int, sound: Callable[[Part], bool], known: Implications) -> str | None:
    """The reason why no job reaches the rule at that place: an earlier sound rule, the first that covers it."""
    when = policy.filing.whens[at]
    if never(when):
        return _NEVER
    for place in policy.filing.may_cover(when):
        if place >= at:
            break
        other = policy.rules[place]
        if sound(other) and known.implies(when, policy.filing.whens[place]):
            where = f"rule '{other.name}' ({other.source})"
            return f"never reached: {where} comes first and fits every job that this rule fits"
    return None


def caps_of(policy: Policy) -> Iterator[tuple[str, Cap, When]]:
    """Every cap with its path and the ``when`` it stands under; a profile's again where a ``when`` narrows models."""
    for name, cap in policy.profiles.items():
        yield f"profiles.{name}.cap", cap, When()
    for rule in policy.rules:
        yield f"caps[{rule.name}].cap", rule.cap, rule.when
        if rule.requests:
            yield f"caps[{rule.name}].requests.min", rule.requests.min, rule.when
            yield f"caps[{rule.name}].requests.max", rule.requests.max, rule.when
    for ceiling in policy.ceilings:
        yield f"ceilings[{ceiling.name}].cap", ceiling.cap, ceiling.when
    yield "idle.cap", policy.idle, When()


def _constant(path: str, part: Part, known: dict[Schedule, str | None]) -> Iterator[Problem]:
    """Schedules that no day has, and ones that are never over. ``known``: what was said of those met before."""
    for schedule in part.when.schedules():
        if schedule not in known:
            known[schedule] = _why_constant(schedule)
        text = known[schedule]
        if text is not None:
            yield Problem(part.source.file, part.source.line, path, text, warning=True)


def _why_constant(schedule: Schedule) -> str | None:
    """Why its answer never turns, as far ahead as it looks; None: it does."""
    if not schedule.ever():
        return "never holds: no day is one of its days"
    if schedule.active(0.0, UTC) and schedule.next_edge(0.0, UTC) is None:
        return "always holds: leave the schedule out"
    return None


def _out_of_range(path: str, cap: Cap, when: When) -> Iterator[Problem]:
    models = [s for s in when.selectors if s.field == "gpu_model"]
    if cap.source is None or (cap.profile and not models):
        return
    narrowed = tuple(p.pattern for s in models for p in s.patterns if isinstance(p, Glob))
    for glob, amount in cap.choices:
        known = range_of(glob, narrowed)
        if known is None or not isinstance(amount, Watts):
            continue
        if known.min_mw <= amount.limit_mw <= known.max_mw:
            continue
        span = f"{format_power(known.min_mw)} to {format_power(known.max_mw)}"
        text = (
            f"{format_power(amount.limit_mw)} is outside of what {known.name} is known to take, {span}: it is clamped"
        )
        yield Problem(cap.source.file, cap.source.line, path, text, warning=True)


def _more_by_choice(policy: Policy, at: int, known: Implications) -> Iterator[Problem]:
    """A warning where the next rule that is sure to fit, were the user to choose otherwise, surely gives less."""
    rule = policy.rules[at]
    fields = sorted(rule.when.fields() & USERS_CHOOSE)
    if not fields:
        return
    whens = policy.filing.whens
    rest = _without_choice(whens[at])
    later = (place for place in policy.filing.may_cover(rest) if place > at)
    found = next((place for place in later if known.implies(rest, whens[place])), None)
    if found is None:
        return
    other = policy.rules[found]
    top, else_top = _top(rule), _top(other)
    if top is None or else_top is None or not _surely_more(top, else_top):
        return
    text = (
        f"gives more power ({top.text}) than rule '{other.name}' ({else_top.text}) on {' and '.join(fields)}, "
        "which users choose themselves"
    )
    yield Problem(rule.source.file, rule.source.line, f"caps[{rule.name}]", text, warning=True)


def _without_choice(when: When) -> When:
    """What is left of a ``when`` that users cannot choose."""
    selectors = tuple(s for s in when.selectors if s.field not in USERS_CHOOSE)
    chosen = when.negated is not None and when.negated.fields() & USERS_CHOOSE
    return When(selectors, None if chosen else when.negated)


def _top(rule: Rule) -> Cap | None:
    """The most a job may come to under a rule: its cap, or what its owner may ask for; None: they do not compare."""
    if rule.requests is None or rule.requests.max.choices == rule.cap.choices:
        return rule.cap
    if _surely_more(rule.requests.max, rule.cap):
        return rule.requests.max
    return rule.cap if _surely_more(rule.cap, rule.requests.max) else None


def _surely_more(left: Cap, right: Cap) -> bool:
    """True where ``left`` is above ``right`` on some model, and below it on none, as far as they compare."""
    if [glob for glob, _ in left.choices] != [glob for glob, _ in right.choices]:
        return False
    pairs = [(a, b) for (_, a), (_, b) in zip(left.choices, right.choices, strict=True)]
    return any(_above(a, b) for a, b in pairs) and all(a == b or _above(a, b) for a, b in pairs)


def _above(left: Amount, right: Amount) -> bool:
    match left, right:
        case (Watts(a), Watts(b)) | (Percent(a), Percent(b)):
            return a > b
        case Keyword.BASELINE | Keyword.DEFAULT | Keyword.MAX, Percent(points):
            return points < 10_000
        case Keyword.BASELINE | Keyword.DEFAULT | Keyword.MAX, Keyword.MIN:
            return True
        case _:
            return False
