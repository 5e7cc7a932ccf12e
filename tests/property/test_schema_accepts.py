"""What our readers accept an editor accepts too, and what it can know to be wrong it refuses as they do."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import yaml12
from tests.property.test_policy_any_text import _flow, texts

from wattkeeper.config.policy import parse_policies
from wattkeeper.config.policy_shape import DAY_NAMES, MONTH_NAMES
from wattkeeper.config.schema import schemas
from wattkeeper.config.settings import parse_settings
from wattkeeper.errors import ConfigError

VALIDATORS = {name: jsonschema.Draft7Validator(schema) for name, schema in schemas().items()}


def refusals(kind: str, text: str) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATORS[kind].iter_errors(yaml12.load(text))]


def is_policy(text: str) -> bool:
    try:
        parse_policies([("p.yaml", text)])
    except ConfigError:
        return False
    return True


def is_settings(text: str) -> bool:
    try:
        parse_settings("s.yaml", text)
    except ConfigError:
        return False
    return True


def _one_or_more(of: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    return of | st.lists(of, min_size=1, max_size=3)


_names = st.sampled_from(
    ["gpu", "ml-*", "no", "0123", "1.5", "true", "Ärzte", "\U0001d49c", "a b", "12:00", "[ab]?", "=", "-"]
)
_amounts = st.sampled_from(
    [
        "250W",
        "250",
        "0250",
        "0.25kW",
        "0.3KW",
        "70%",
        "66.67 %",
        "Baseline",
        "default",
        "MIN",
        "max",
        " 80% ",
        "1",
        "300w",
    ]
)
_caps = (
    _amounts
    | st.sampled_from(["eco", "team_mW", "_x"])
    | st.lists(
        st.fixed_dictionaries({"model": st.sampled_from(["*V100*", "7", "*"]), "cap": _amounts}), min_size=1, max_size=2
    )
)
_counts = st.sampled_from(["2", ">=2", "< 8", "!=1", "=4", "007", " 3"])
_month = st.sampled_from([name for pair in MONTH_NAMES for name in pair] + ["1", "06", "12", "Nov", "JULY"])
_day = st.sampled_from([name for pair in DAY_NAMES for name in pair] + ["Fri", "SUNDAY"])
_range = st.sampled_from(["{0}", "{0}-{1}", "{0} - {1}", " {0}-{1} "])
_calendar = st.fixed_dictionaries(
    {},
    optional={
        "months": _one_or_more(st.builds(str.format, _range, _month, _month)),
        "days": _one_or_more(st.builds(str.format, _range, _day, _day)),
        "hours": _one_or_more(st.sampled_from(["12:00-18:00", "22:00 - 6:00", "00:00-24:00"])),
        "zone": st.sampled_from(["UTC", "Europe/Zurich"]),
    },
)
_cron = st.fixed_dictionaries(
    {
        "cron": st.sampled_from(["0 12 * * mon-fri", " */5 0-3  1,2 JAN 0"]),
        "for": st.sampled_from(["6h", "1m", "1.5d"]),
    },
    optional={"zone": st.just("UTC")},
)
_fields: dict[str, st.SearchStrategy[object]] = {
    **dict.fromkeys(
        ("user", "group", "account", "partition", "qos", "reservation", "constraint"), _one_or_more(_names)
    ),
    "job_name": _one_or_more(_names | st.just("a,b")),
    "gpus": _one_or_more(_counts),
    "num_nodes": _one_or_more(_counts),
    "node": _one_or_more(st.sampled_from(["node7", "node[1-4,07-10]", "gpu*", "7"])),
    "gpu_model": _one_or_more(_names),
    "schedule": _calendar | _cron | st.lists(_calendar | _cron, min_size=1, max_size=2),
}


def _when(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.fixed_dictionaries({}, optional={**_fields, "not": inner})


_whens = _when(_when(st.nothing()))
_requests = st.fixed_dictionaries(
    {"min": _caps, "max": _caps}, optional={"outside": st.sampled_from(["clamp", "deny"])}
)
_rule = {"name": st.sampled_from(["a", "peak 2", "Überlast", "x/y:z@w+1", "\U0001d49c", "0", "true"]), "cap": _caps}
_policies = st.fixed_dictionaries(
    {
        "version": st.just("1"),
        "profiles": st.just({"eco": {"cap": "60%"}, "team_mW": {"cap": "50%"}, "_x": {"cap": "9W"}}),
    },
    optional={
        "caps": st.lists(
            st.fixed_dictionaries(
                _rule, optional={"when": _whens, "requests": _requests, "mode": st.sampled_from(["enforce", "observe"])}
            ),
            max_size=1,
        ),
        "ceilings": st.lists(
            st.fixed_dictionaries(_rule, optional={"when": _whens, "ramp": st.sampled_from(["0", "10m", "90s"])}),
            max_size=1,
        ),
        "idle": st.fixed_dictionaries({"cap": _caps}),
        "shared_gpus": st.sampled_from(["highest", "lowest"]),
    },
)
_paths = st.sampled_from(["/a", "/a b/c", "~", "null"])
_gpu = st.sampled_from(["0", "07", "GPU-1c2d", "MIG-a/1/2"])
_settings = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["enforce", "observe"]),
        "node": st.sampled_from(["n-1", "7", "null", "true"]),
        "time_zone": st.sampled_from(["UTC", "null"]),
        "interval": st.sampled_from(["500ms", "5s", "1h"]),
        "run_dir": _paths,
        "gpus": st.fixed_dictionaries(
            {},
            optional={
                "library": _paths,
                "include": _gpu | st.just("null") | st.lists(_gpu, max_size=2),
                "exclude": _gpu | st.lists(_gpu, max_size=2),
                "map": st.just("null") | st.lists(_gpu, min_size=1, max_size=2) | st.dictionaries(st.just("3"), _gpu),
                "baseline": st.sampled_from(["found", "default"]) | st.dictionaries(_names, _amounts, max_size=2),
                "exceed_baseline": st.sampled_from(["true", "false"]),
            },
        ),
        "metrics": st.fixed_dictionaries(
            {},
            optional={
                "listen": st.sampled_from(["127.0.0.1:9745", "[::1]:80", "null", "host:1"]),
                "web_config": st.just("null"),
                "textfile": _paths,
                "job_labels": st.sampled_from(["full", "id", "none"]),
                "grace": st.sampled_from(["0s", "5m"]),
            },
        ),
        "slurm": st.fixed_dictionaries(
            {},
            optional={
                "lookup": st.sampled_from(["auto", "pyslurm", "scontrol", "off"]),
                "conf": _paths,
                "timeout": st.just("2s"),
                "event_users": _one_or_more(st.sampled_from(["root", "slurm", "0"])),
                "strict": st.sampled_from(["off", "fail"]),
            },
        ),
        "ledger": st.fixed_dictionaries({}, optional={"keep": st.just("400d")}),
        "drift": st.sampled_from(["repair", "report", "yield"]),
        "on_stop": st.sampled_from(["restore-idle", "keep", "restore"]),
    },
)


def _bare(tree: object) -> str:
    """In flow style, words in quotes only where they must be: YAML then takes some of them for something else."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f'"{key}": {_bare(value)}' for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(_bare, tree)) + "]"
    word = str(tree)
    plain = (
        word == word.strip() and not set(word) & set("[]{},*&!|>'\"%@`") and word[:1] not in {"-", "=", "?", ":", "<"}
    )
    return word if plain and ": " not in word and not word.endswith(":") else f'"{word}"'


def _written(trees: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return trees.map(_bare) | trees.map(lambda tree: _flow(tree, quote=True))


@given(_written(_policies))
@settings(max_examples=400)
def test_editors_accept_every_policy_that_we_accept(text: str) -> None:
    if is_policy(text):
        assert refusals("policy", text) == []


@given(_written(_settings))
@settings(max_examples=300)
def test_editors_accept_all_settings_that_we_accept(text: str) -> None:
    if is_settings(text):
        assert refusals("settings", text) == []


@given(texts)
@settings(max_examples=200)
def test_editors_accept_any_text_that_we_accept(text: str) -> None:
    if is_policy(text):
        assert refusals("policy", text) == []
    if is_settings(text):
        assert refusals("settings", text) == []


def _selectors() -> st.SearchStrategy[tuple[str, object]]:
    return st.sampled_from(sorted(_fields)).flatmap(lambda name: st.tuples(st.just(name), _fields[name]))


@given(_selectors())
@settings(max_examples=300)
def test_editors_accept_each_selector_that_we_accept(pair: tuple[str, object]) -> None:
    name, value = pair
    text = f"{{version: 1, caps: [{{name: a, when: {{{name}: {_bare(value)}}}, cap: 60%}}]}}"
    if is_policy(text):
        assert refusals("policy", text) == []


def test_the_strategies_make_what_we_accept() -> None:
    """Else the tests above would say nothing."""
    accepted: list[bool] = []

    @given(_written(_policies))
    @settings(max_examples=100, database=None)
    def count(text: str) -> None:
        accepted.append(is_policy(text))

    count()
    assert sum(accepted) > len(accepted) / 4


MISTAKES = """\
[]
{}
{version: 2}
{version: 1, capz: []}
{version: 1, caps: {}}
{version: 1, caps: [a]}
{version: 1, caps: [{name: a}]}
{version: 1, caps: [{cap: 60%}]}
{version: 1, caps: [{name: "", cap: 60%}]}
{version: 1, caps: [{name: " a", cap: 60%}]}
{version: 1, caps: [{name: "a!", cap: 60%}]}
{version: 1, caps: [{name: a, cap: }]}
{version: 1, caps: [{name: a, cap: 0}]}
{version: 1, caps: [{name: a, cap: 25OW}]}
{version: 1, caps: [{name: a, cap: 60 percent}]}
{version: 1, caps: [{name: a, cap: 250000mW}]}
{version: 1, caps: [{name: a, cap: 250000 MW}]}
{version: 1, caps: [{name: a, cap: 200000}]}
{version: 1, caps: [{name: a, cap: []}]}
{version: 1, caps: [{name: a, cap: {a: b}}]}
{version: 1, caps: [{name: a, cap: [{model: x}]}]}
{version: 1, caps: [{name: a, cap: [{cap: 60%}]}]}
{version: 1, caps: [{name: a, cap: [{model: x, cap: eco}]}]}
{version: 1, caps: [{name: a, cap: 60%, mode: dry}]}
{version: 1, caps: [{name: a, cap: 60%, ramp: 10m}]}
{version: 1, caps: [{name: a, cap: 60%, requests: {min: 1}}]}
{version: 1, caps: [{name: a, cap: 60%, requests: {min: 100W, max: 200W, outside: maybe}}]}
{version: 1, caps: [{name: a, cap: 60%, requests: true}]}
{version: 1, caps: [{name: a, cap: 60%, when: {partion: gpu}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {user: []}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {user: ~}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {user: "a,b"}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {gpus: lots}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {gpus: -1}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {gpus: "=>2"}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {gpu_model: {a: b}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {not: {}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {not: [a]}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {zone: UTC}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {months: 13}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {months: jnu-sep}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {days: 1-5}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {days: mon-wed-fri}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {hours: 22-06}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {cron: "0 12 * *", for: 1h}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {cron: "0 12 * * mon"}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {for: 1h}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {cron: "0 12 * * mon", for: soon}}}]}
{version: 1, caps: [{name: a, cap: 60%, when: {schedule: {cron: "0 12 * * mon", for: 1h, days: mon}}}]}
{version: 1, ceilings: [{name: a, cap: 60%, requests: {min: 1, max: 2}}]}
{version: 1, ceilings: [{name: a, cap: 60%, when: {schedule: {days: mon}}, ramp: 10}]}
{version: 1, profiles: {min: {cap: 60%}}}
{version: 1, profiles: {Baseline: {cap: 60%}}}
{version: 1, profiles: {"a b": {cap: 60%}}}
{version: 1, profiles: {eco: 60%}}
{version: 1, profiles: {eco: {cap: other}}}
{version: 1, idle: {}}
{version: 1, idle: 60%}
{version: 1, shared_gpus: both}
"""
SETTINGS_MISTAKES = """\
[]
{mod: enforce}
{mode: dry}
{interval: 5}
{interval: soon}
{run_dir: ~}
{state_dir: lib/wattkeeper}
{policies: [a, b]}
{node: "a b"}
{gpus: ~}
{gpus: {gpu: 0}}
{gpus: {include: first}}
{gpus: {exclude: 1x}}
{gpus: {exclude: -1}}
{gpus: {map: {a: 1}}}
{gpus: {map: []}}
{gpus: {baseline: best}}
{gpus: {baseline: {"*A100*": 70%}}}
{gpus: {exceed_baseline: maybe}}
{metrics: {listen: 9745}}
{metrics: {job_labels: all}}
{metrics: {port: 1}}
{slurm: {lookup: of}}
{slurm: {strict: on}}
{slurm: {event_users: []}}
{ledger: {keep: forever}}
{drift: fight}
{on_stop: ~}
"""


@pytest.mark.parametrize("text", MISTAKES.splitlines())
def test_mistakes_in_policies_are_refused_by_both(text: str) -> None:
    assert not is_policy(text)
    assert refusals("policy", text)


@pytest.mark.parametrize("text", SETTINGS_MISTAKES.splitlines())
def test_mistakes_in_settings_are_refused_by_both(text: str) -> None:
    assert not is_settings(text)
    assert refusals("settings", text)
