"""What is explained is what is done: the last step's cap, the target, and what `wattkeeper explain` prints."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

from wattkeeper.cli.explain import explain
from wattkeeper.config.policy import parse_policies
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.policy import Policy
from wattkeeper.core.resolve import resolve
from wattkeeper.errors import ConfigError
from wattkeeper.model import UNKNOWN, Conditions, GpuContext, GpuInfo, GpuUuid, JobFacts, JobKey, StepKind, Target
from wattkeeper.units import Milliwatts, format_power

MODEL = "Example 4000"
NAMES = ("alpha", "beta", "gamma")
FIELDS = ("user", "account", "partition", "reservation", "qos", "job_name", "group")
LATER = frozenset({"qos", "job_name", "group"})
"""Fields that are not known where no option names them."""
NODES = ("n1", "n2", "gpu-a")
MOMENTS = tuple(datetime(2027, 7, day, hour, 55, tzinfo=UTC) for day in (1, 4) for hour in (9, 11, 17))
"""A Thursday and a Sunday: before the window of ``_schedules``, in its ramp, and about its end."""

_watts = st.integers(50, 900).map("{}W".format)
_percents = st.integers(5, 100).map("{}%".format)
_keywords = st.sampled_from(["baseline", "default", "min", "max"])
_caps = _watts | _percents | _keywords | st.just("eco")
_by_model = st.lists(
    st.fixed_dictionaries({"model": st.sampled_from(["*4000", "Example*", "*100*"]), "cap": _watts | _percents}),
    min_size=1, max_size=2, unique_by=lambda choice: choice["model"],
)  # fmt: skip
_selectors = st.dictionaries(
    st.sampled_from(FIELDS), st.lists(st.sampled_from([*NAMES, "*a", "g*"]), min_size=1, max_size=2, unique=True),
    max_size=2,
)  # fmt: skip
_counts = st.dictionaries(
    st.sampled_from(["gpus", "num_nodes"]), st.sampled_from([">=2", "1", "<4", "!=2"]), max_size=1
)


_schedules = st.sampled_from([
    {"days": "mon-fri", "hours": "12:00-18:00"}, {"cron": "0 12 * * mon-fri", "for": "6h"}, {"months": "dec"},
    [{"days": "sun"}, {"hours": "09:00-10:00"}],
])  # fmt: skip
_none: st.SearchStrategy[dict[str, Any]] = st.just({})
_times = _none | _schedules.map(lambda schedule: {"schedule": schedule})
_places = _none | st.sampled_from(["n[1-2]", "gpu*"]).map(lambda node: {"node": node})


@st.composite
def _whens(draw: st.DrawFn) -> dict[str, Any]:
    when: dict[str, Any] = {**draw(_selectors), **draw(_counts), **draw(_times), **draw(_places)}
    negated = {**draw(_none | _selectors), **draw(_times)}
    return {**when, "not": negated} if negated else when


@st.composite
def _entries(draw: st.DrawFn, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "cap": draw(_caps | _by_model)}
    if when := draw(_whens()):
        entry["when"] = when
    return entry


@st.composite
def policies(draw: st.DrawFn) -> str:
    """A policy's text, as JSON, which is YAML."""
    rules = [draw(_entries(f"rule{number}")) for number in range(draw(st.integers(0, 3)))]
    for rule in rules:
        if draw(st.booleans()):
            low, high = draw(st.sampled_from([("min", "max"), ("min", "baseline"), ("100W", "60%"), ("40%", "eco")]))
            outside = draw(st.sampled_from([{}, {"outside": "deny"}]))
            rule["requests"] = {"min": low, "max": high, **outside}
    ceilings = [draw(_entries(f"ceiling{number}")) for number in range(draw(st.integers(0, 2)))]
    for ceiling in ceilings:
        if "schedule" in ceiling.get("when", {}):
            ceiling.update(draw(st.sampled_from([{}, {"ramp": "0"}, {"ramp": "1h"}])))
    eco = {"cap": draw(_watts | _percents)}
    return json.dumps({"version": 1, "profiles": {"eco": eco}, "caps": rules, "ceilings": ceilings}, indent=1)


@st.composite
def gpus(draw: st.DrawFn) -> GpuContext:
    low, default, high = sorted(draw(st.lists(st.integers(60, 800), min_size=3, max_size=3)))
    baseline = draw(st.integers(low, high))
    info = GpuInfo(
        GpuUuid("GPU-1"), 0, 0, MODEL, Milliwatts(default * 1000), Milliwatts(low * 1000), Milliwatts(high * 1000)
    )
    return GpuContext(info, Milliwatts(baseline * 1000), draw(st.booleans()))


COMMENTS = (
    None, "power=150W", "power=40%", "power=1W", "power=9kW", "power=baseline", "power=max", "power=min", "power=eco",
    "power=nosuch", "power=150W power=160W", 'also "power=200W", it says', '{"power": "55%"}',
)  # fmt: skip


@dataclass(frozen=True)
class Described:
    """A job, as the options of `explain` describe it."""

    fields: dict[str, str]
    gpus: int
    num_nodes: int
    node: str
    at: datetime

    @property
    def facts(self) -> JobFacts:
        missing = {field: UNKNOWN if field in LATER else None for field in (*FIELDS, "comment")}
        texts: dict[str, Any] = {**missing, **self.fields}
        group = texts.pop("group")
        groups = UNKNOWN if group is UNKNOWN else frozenset({group})
        key = JobKey("", 1, "r0")
        return JobFacts(key, 1000, gpus=self.gpus, num_nodes=self.num_nodes, node=self.node, groups=groups, **texts)

    @property
    def options(self) -> list[str]:
        words = [f"--gpus={self.gpus}", f"--num-nodes={self.num_nodes}"]
        words += [f"--node={self.node}", f"--at={self.at.isoformat()}"]
        return words + [f"--{field.replace('_', '-')}={text}" for field, text in self.fields.items()]


@st.composite
def jobs(draw: st.DrawFn) -> Described:
    fields = draw(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(NAMES), max_size=7))
    comment = draw(st.sampled_from(COMMENTS))
    return Described(
        fields if comment is None else {**fields, "comment": comment},
        gpus=draw(st.integers(1, 4)),
        num_nodes=draw(st.integers(1, 4)),
        node=draw(st.sampled_from(NODES)),
        at=draw(st.sampled_from(MOMENTS)),
    )


def read(text: str, name: str = "policy.yaml") -> Policy:
    try:
        return parse_policies([(name, text)])[0]
    except ConfigError:
        assume(False)  # such as a rule that can never be reached
        raise


def decided(job: Described, gpu: GpuContext, policy: Policy) -> Target:
    conditions = Conditions(now_at=job.at.timestamp(), node=job.node)
    return arbitrate([resolve(job.facts, gpu, policy, conditions)], gpu, policy)


@given(policies(), jobs(), gpus())
def test_the_last_step_says_what_the_gpu_gets(text: str, job: Described, gpu: GpuContext) -> None:
    target = decided(job, gpu, read(text))
    (decision,) = target.decisions
    assert [step.kind for step in decision.steps] == list(StepKind)
    assert decision.steps[-1].cap_mw == target.limit_mw
    assert decision.pending <= LATER - set(job.fields)
    assert target.limit_mw is not None
    top = gpu.info.max_mw if gpu.exceed_baseline else min(gpu.info.max_mw, gpu.baseline_mw or gpu.info.max_mw)
    assert gpu.info.min_mw <= target.limit_mw <= top


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explain")


@given(text=policies(), job=jobs(), gpu=gpus())
def test_explain_prints_what_the_agent_would_do(folder: Path, text: str, job: Described, gpu: GpuContext) -> None:
    path, settings = folder / "policy.yaml", folder / "settings.yaml"
    target = decided(job, gpu, read(text, str(path)))
    path.write_text(text)
    settings.write_text(json.dumps({"time_zone": "UTC", "gpus": {"exceed_baseline": gpu.exceed_baseline}}))
    info = gpu.info
    limits = {"default": info.default_mw, "min": info.min_mw, "max": info.max_mw, "baseline": gpu.baseline_mw}
    words = [
        *job.options, f"--gpu-model={MODEL}", f"--policy={path}", f"--config={settings}",
        *(f"--{name}={(limit or 0) // 1000}W" for name, limit in limits.items()),
    ]  # fmt: skip
    done = CliRunner().invoke(explain, [*words, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert target.limit_mw is not None
    assert told["cap_w"] * 1000 == pytest.approx(target.limit_mw, abs=1e-6)
    (decision,) = target.decisions
    assert [step["text"] for step in told["steps"]] == [step.text for step in decision.steps]
    assert [step["source"] for step in told["steps"]] == [
        None if step.source is None else str(step.source) for step in decision.steps
    ]
    lines = CliRunner().invoke(explain, words).stdout.splitlines()
    assert lines[-1].strip() == f"applied: {format_power(target.limit_mw)}"
    assert (decision.next_change is not None) == lines[-2].startswith("  stands until")
