"""What may stand in a policy file: ``config.policy`` and its parts read by this, and editors complete by it."""

import re
from itertools import chain

from wattkeeper.config.shapes import (
    TEXT,
    Either,
    Key,
    Kind,
    Listed,
    Named,
    Ref,
    Shape,
    Span,
    Words,
    Written,
    one_or_more,
)
from wattkeeper.core.policy import Keyword
from wattkeeper.core.request import MILLI, PROFILE
from wattkeeper.core.schedule import LONGEST_S
from wattkeeper.units import PERCENT, POWER

MOST_MW = 100_000_000
NAME = re.compile(r"[\w](?:[\w .:@+/-]{0,62}[\w.:@+/-])?")
COMPARE = re.compile(r"(==|!=|<=|>=|=|<|>|)\s*([0-9]{1,6})")
HOURS = re.compile(r"([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})")

MONTH_NAMES = (
    ("jan", "january"),
    ("feb", "february"),
    ("mar", "march"),
    ("apr", "april"),
    ("may", "may"),
    ("jun", "june"),
    ("jul", "july"),
    ("aug", "august"),
    ("sep", "september"),
    ("oct", "october"),
    ("nov", "november"),
    ("dec", "december"),
)
DAY_NAMES = (
    ("mon", "monday"),
    ("tue", "tuesday"),
    ("wed", "wednesday"),
    ("thu", "thursday"),
    ("fri", "friday"),
    ("sat", "saturday"),
    ("sun", "sunday"),
)

_KEYWORDS = "|".join(Keyword)
_KEYWORD = re.compile(_KEYWORDS, re.IGNORECASE)
_WATTS = re.compile(rf"(?![\s\S]*{MILLI.pattern}){POWER.pattern}", re.IGNORECASE)
_PROFILE_NAME = re.compile(rf"(?!(?:{_KEYWORDS})\Z){PROFILE.pattern}", re.IGNORECASE)
_WATT_NUMBERS = (1, MOST_MW // 1_000_000 * 1_000)


def _range_of(words: tuple[tuple[str, str], ...], more: str = "") -> re.Pattern[str]:
    """``jun`` or ``jun-sep``, in any case."""
    one = f"(?:{'|'.join(dict.fromkeys(chain.from_iterable(words)))}{more})"
    return re.compile(rf"{one}(?:\s*-\s*{one})?", re.IGNORECASE)


AMOUNTS = "250W, 0.25kW, 70%, baseline, default, min, max"
AMOUNT = Written((_KEYWORD, PERCENT, _WATTS), numbers=_WATT_NUMBERS, trimmed=True, allowed=AMOUNTS)
CHOICE = Shape(
    {
        "model": Key(TEXT, 'NVML\'s name of the GPU, with * and ?, in any case: "*H100*"'),
        "cap": Key(AMOUNT, "A power limit: 250W, 70%, baseline, default, min, max"),
    },
    required=("model", "cap"),
)
_PROFILE_CAP = Either((AMOUNT, Listed(Ref("choice"))))
_CAP = Either(
    (
        Written(
            (_KEYWORD, PERCENT, _WATTS, PROFILE),
            numbers=_WATT_NUMBERS,
            trimmed=True,
            allowed=f"{AMOUNTS}, a profile's name, a list by model",
        ),
        Listed(Ref("choice")),
    )
)
_ABOUT_CAP = (
    "The power limit of each GPU: watts (250W, 0.25kW), a share of its default limit (70%), baseline, default, "
    "min or max, a profile's name, or a list by model of GPU"
)

SCHEDULE_FOR = Span(60, LONGEST_S, "1m to 7d, such as 6h")
MONTH = Written(
    (_range_of(MONTH_NAMES, "|0?[1-9]|1[0-2]"),), numbers=(1, 12), trimmed=True, allowed="jun, jun-sep, [jan, nov-feb]"
)
DAY = Written((_range_of(DAY_NAMES),), trimmed=True, allowed="mon, mon-fri, [mon, wed-fri], fri-mon")
HOUR = Written((HOURS,), trimmed=True, allowed='"12:00-18:00", "22:00-06:00", ["06:00-08:00", "18:00-24:00"]')
CRON = Written((re.compile(r"\S+(?:\s+\S+){4}"),), trimmed=True, allowed='"0 12 * * mon-fri"')
CALENDAR = ("months", "days", "hours")
SCHEDULE = Shape(
    {
        "months": Key(
            one_or_more(MONTH),
            "jun, jun-sep, [jan, nov-feb], or numbers; left out: all",
        ),
        "days": Key(
            one_or_more(DAY),
            "Days of the week by name: mon-fri, fri-mon, [wed, sat]; left out: all",
        ),
        "hours": Key(
            one_or_more(HOUR),
            'Times of day, the end not included: "12:00-18:00"; "22:00-06:00" ends on the day after',
        ),
        "cron": Key(
            CRON,
            'When it begins, as in crontab(5), where 0 and 7 are Sunday: "0 12 * * mon-fri"',
        ),
        "for": Key(SCHEDULE_FOR, "For how long it holds each time the cron line fires: 6h"),
        "zone": Key(TEXT, "Time zone: Europe/Zurich; left out: the setting time_zone, else the node's"),
    },
    pairs=(("cron", "for"),),
    apart=("cron", CALENDAR),
    some=(*CALENDAR, "cron"),
)

COUNT = Written((COMPARE,), numbers=(0, 999_999), trimmed=True, allowed='2, ">=2", "<8", "!=1"')
_NAMES = one_or_more(TEXT)
_NO_COMMAS = one_or_more(Written((re.compile(r"[^,]*"),), scalar=True, allowed="a name, or a list, [a, b]"))
_GLOB = "one or a list of which one must match, with * and ?"
TEXT_FIELDS = {
    "user": Key(_NO_COMMAS, f"The job's owner; {_GLOB}"),
    "group": Key(_NO_COMMAS, f"A Unix group of its owner, by the node's user database; {_GLOB}"),
    "account": Key(_NO_COMMAS, f"Its Slurm account; {_GLOB}"),
    "partition": Key(_NO_COMMAS, f"Its partition, which users choose; {_GLOB}"),
    "qos": Key(_NO_COMMAS, f"Its QOS: one look-up for each start of a job before Slurm 26.05; {_GLOB}"),
    "job_name": Key(_NAMES, f"Its name, which users choose: one look-up for each start of a job; {_GLOB}"),
    "reservation": Key(_NO_COMMAS, f"Its reservation; {_GLOB}"),
    "constraint": Key(_NO_COMMAS, f"A feature that its constraint names; {_GLOB}"),
}
COUNT_FIELDS = {
    "gpus": Key(one_or_more(COUNT), 'How many GPUs the job has on this node: 2, ">=2", "<8", "!=1"'),
    "num_nodes": Key(one_or_more(COUNT), 'How many nodes the job has: 2, ">=2", "<8", "!=1"'),
}
WHEN = Shape(
    {
        **TEXT_FIELDS,
        **COUNT_FIELDS,
        "node": Key(_NAMES, "This node: a hostlist, node[1-4,7], or a name with * and ?"),
        "gpu_model": Key(_NAMES, 'NVML\'s name of the GPU, in any case: "*H100*"'),
        "schedule": Key(one_or_more(Ref("schedule")), "The time; of a list one must hold"),
        "not": Key(Ref("when", filled=True), "A `when` that must not match as a whole"),
    }
)

VERSION = Words(("1",))
MODE = Words(("enforce", "observe"))
OUTSIDE = Words(("clamp", "deny"))
SHARED_GPUS = Words(("highest", "lowest"))
RAMP = Span(0, 6 * 3600, "0 (none), up to 6h, such as 10m")
PART_NAME = Written((NAME,), scalar=True, allowed="letters, digits, spaces and _ . : @ + / -, at most 64")
_NAME = Key(PART_NAME, "How explain, status and the log call it; unique in the policy")
_WHEN = Key(Ref("when"), "Which jobs, nodes, GPUs and times it is for: all keys must match; left out: all")

REQUESTS = Shape(
    {
        "min": Key(Ref("cap"), "The least that the job's owner may ask for"),
        "max": Key(Ref("cap"), "The most that the job's owner may ask for"),
        "outside": Key(OUTSIDE, "What becomes of a request out of bounds: clamp (default) to the bound, or deny"),
    },
    required=("min", "max"),
)
RULE = Shape(
    {
        "name": _NAME,
        "when": _WHEN,
        "cap": Key(Ref("cap"), _ABOUT_CAP),
        "requests": Key(REQUESTS, "What the job's owner may ask for; left out: every request is denied"),
        "mode": Key(MODE, "observe: decide, meter and report for these jobs, but write no limit"),
    },
    required=("name", "cap"),
)
CEILING = Shape(
    {
        "name": _NAME,
        "when": _WHEN,
        "cap": Key(Ref("cap"), f"At most this, over every cap and request. {_ABOUT_CAP}"),
        "ramp": Key(
            Either((RAMP, Written((re.compile("0"),), numbers=(0, 0), trimmed=True))),
            "Over how long nodes take it on and leave it one after another; default 10m with a schedule; 0: at once",
        ),
    },
    required=("name", "cap"),
)
IDLE = Shape({"cap": Key(Ref("cap"), "The limit of GPUs that no job holds")}, required=("cap",))
PROFILE_ENTRY = Shape({"cap": Key(_PROFILE_CAP, "A power limit, or a list of them by model")}, required=("cap",))

PROFILE_NAMES = "a letter or _, then letters, digits, _ . -, at most 64; not baseline, default, min or max"
POLICY = Shape(
    {
        "version": Key(VERSION, "Of this format"),
        "profiles": Key(
            Named(Written((_PROFILE_NAME,), allowed=PROFILE_NAMES), PROFILE_ENTRY),
            "Names for caps, which users may ask for: power=eco",
        ),
        "caps": Key(
            Listed(RULE, empty=True), "The first rule that matches gives the job its cap and bounds what it may ask for"
        ),
        "ceilings": Key(Listed(CEILING, empty=True), "Every one that matches applies; the lowest wins"),
        "idle": Key(IDLE, "GPUs that no job holds; default: baseline"),
        "shared_gpus": Key(SHARED_GPUS, "What a GPU gets that several jobs hold: the highest (default) of their caps"),
    },
    required=("version",),
)

POLICY_KINDS: dict[str, Kind] = {"cap": _CAP, "choice": CHOICE, "schedule": SCHEDULE, "when": WHEN}
"""The kinds that ``Ref`` names."""
