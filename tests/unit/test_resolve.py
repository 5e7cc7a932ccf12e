"""Decisions in words, for policies one may meet. WATTKEEPER_UPDATE_GOLDEN=1 writes the golden ones anew."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from wattkeeper.config.policy import load_policies
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.policy import Policy
from wattkeeper.core.resolve import resolve, resolve_idle
from wattkeeper.model import (
    UNKNOWN,
    Conditions,
    GpuContext,
    GpuInfo,
    GpuUuid,
    JobFacts,
    JobKey,
    Outcome,
    Target,
)
from wattkeeper.units import Milliwatts

GOLDEN = Path(__file__).parent.parent / "golden" / "explain.txt"
CONDITIONS = Conditions(now_at=0.0, node="gpu07")
INFO = GpuInfo(
    uuid=GpuUuid("GPU-1"),
    minor=0,
    index=0,
    model="NVIDIA H100 80GB HBM3",
    default_mw=Milliwatts(700_000),
    min_mw=Milliwatts(200_000),
    max_mw=Milliwatts(700_000),
)
GPU = GpuContext(INFO, Milliwatts(700_000))
LOWERED = GpuContext(INFO, Milliwatts(500_000))  # somebody lowered it before we came
NOT_KNOWN = GpuContext(INFO, None)

POLICY = """\
version: 1
profiles:
  eco: {cap: 60%}
  efficient: {cap: [{model: "*V100*", cap: 150W}, {model: "*H100*HBM3*", cap: 450W}]}
caps:
  - {name: debug, when: {partition: debug}, cap: eco}
  - {name: tiny, when: {partition: tiny}, cap: 50W}
  - {name: ml, when: {account: "ml-*"}, cap: 80%, requests: {min: 50%, max: baseline}}
  - {name: strict, when: {account: hpc}, cap: 400W, requests: {min: 300W, max: 500W, outside: deny}}
  - {name: urgent, when: {reservation: urgent}, cap: max, requests: {min: min, max: max}}
  - {name: everyone, cap: baseline, requests: {min: min, max: baseline}}
ceilings:
  - {name: hot-rack, when: {node: "gpu0[8-9]"}, cap: 55%}
  - {name: interactive, when: {partition: debug}, cap: 350W}
idle: {cap: 300W}
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    folder = tmp_path_factory.mktemp("policies")
    (folder / "site.yaml").write_text(POLICY)
    return load_policies(folder / "site.yaml")[0]


def job(comment: str | None = None, uid: int = 1000, number: int = 7, **more: object) -> JobFacts:
    named = {"user": "alice", "account": "bio", "partition": "gpu", "qos": "normal", "node": "gpu07"} | more
    return JobFacts(JobKey("c", number, "r0"), uid, comment=comment, gpus=1, **named)  # type: ignore[arg-type]


def decide(policy: Policy, *jobs: JobFacts, gpu: GpuContext = GPU, conditions: Conditions = CONDITIONS) -> Target:
    decisions = [resolve(one, gpu, policy, conditions) for one in jobs] or [resolve_idle(gpu, policy, conditions)]
    return arbitrate(decisions, gpu, policy)


CASES: dict[str, tuple[Sequence[JobFacts], GpuContext]] = {
    "a job that asks for nothing": ([job()], GPU),
    "granted": ([job("power=250W")], GPU),
    "granted in percent": ([job("power=70%")], GPU),
    "granted a profile": ([job("power=efficient")], GPU),
    "clamped to the rule's least": ([job("power=100W", account="ml-vision")], GPU),
    "clamped to the rule's most": ([job("power=2kW", account="ml-vision")], GPU),
    "denied: the rule takes no requests": ([job("power=250W", partition="debug")], GPU),
    "denied: outside of the rule's bounds": ([job("power=250W", account="hpc")], GPU),
    "malformed": ([job("power=lots!")], GPU),
    "malformed: two requests": ([job("power=250W power=300W")], GPU),
    "malformed: no such profile": ([job("power=turbo")], GPU),
    "a cap below the device's range": ([job(partition="tiny")], GPU),
    "a cap above a lowered baseline": ([job("power=max", reservation="urgent")], LOWERED),
    "the baseline is not known": ([job("power=250W")], NOT_KNOWN),
    "a field is not yet known": ([job(reservation=UNKNOWN)], GPU),
    "an absent account": ([job(account=None)], GPU),
    "a ceiling that binds": ([job(node="gpu08")], GPU),
    "a ceiling that does not bind": ([job("power=250W", node="gpu08")], GPU),
    "shared by one user": ([job("power=250W"), job("power=300W", number=8)], GPU),
    "shared by two users": ([job("power=250W"), job("power=300W", uid=1001, number=8)], GPU),
    "an idle GPU": ([], GPU),
    "an idle GPU with a baseline that is not known": ([], NOT_KNOWN),
}


def explain(target: Target) -> str:
    lines = []
    for decision in target.decisions:
        who = f"job {decision.job.key}" if decision.job else "nobody"
        lines.append(f"  {who}: {decision.outcome}, pending: {', '.join(sorted(decision.pending)) or '-'}")
        lines += [f"    {step}" for step in decision.steps]
    limit = "left alone" if target.limit_mw is None else f"{target.limit_mw} mW"
    return "\n".join([*lines, f"  limit: {limit}, because of {target.why}"])


def test_decisions_in_words_are_the_golden_ones(policy: Policy) -> None:
    found = "".join(f"{name}\n{explain(decide(policy, *jobs, gpu=gpu))}\n\n" for name, (jobs, gpu) in CASES.items())
    found = found.replace(str(policy.rules[0].source.file), "site.yaml")
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("case", "limit_w", "outcome"),
    [
        ("a job that asks for nothing", 700, Outcome.NONE),
        ("granted", 250, Outcome.GRANTED),
        ("granted in percent", 490, Outcome.GRANTED),
        ("granted a profile", 450, Outcome.GRANTED),
        ("clamped to the rule's least", 350, Outcome.CLAMPED),
        ("clamped to the rule's most", 700, Outcome.CLAMPED),
        ("denied: the rule takes no requests", 350, Outcome.DENIED),
        ("denied: outside of the rule's bounds", 400, Outcome.DENIED),
        ("malformed", 700, Outcome.MALFORMED),
        ("malformed: two requests", 700, Outcome.MALFORMED),
        ("malformed: no such profile", 700, Outcome.MALFORMED),
        ("a cap below the device's range", 200, Outcome.NONE),
        ("a cap above a lowered baseline", 500, Outcome.CLAMPED),
        ("the baseline is not known", None, Outcome.GRANTED),
        ("a ceiling that binds", 385, Outcome.NONE),
        ("a ceiling that does not bind", 250, Outcome.GRANTED),
        ("shared by one user", 300, Outcome.GRANTED),
        ("shared by two users", 700, Outcome.DENIED),
        ("an idle GPU", 300, Outcome.NONE),
        ("an idle GPU with a baseline that is not known", None, Outcome.NONE),
    ],
)
def test_the_limit_and_the_outcome(policy: Policy, case: str, limit_w: int | None, outcome: Outcome) -> None:
    jobs, gpu = CASES[case]
    target = decide(policy, *jobs, gpu=gpu)
    assert target.limit_mw == (None if limit_w is None else limit_w * 1000)
    assert {decision.outcome for decision in target.decisions} == {outcome}


@pytest.mark.parametrize("cap", ["baseline", "default", "max", "700W", "100%", "9kW"])
def test_a_lowered_baseline_is_never_exceeded_by_rule_request_or_idle(tmp_path: Path, cap: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        f"version: 1\ncaps: [{{name: a, cap: {cap}, requests: {{min: min, max: {cap}}}}}]\nidle: {{cap: {cap}}}\n"
    )
    policy = load_policies(file)[0]
    for jobs in ([], [job()], [job("power=max")], [job("power=700W")]):
        assert decide(policy, *jobs, gpu=LOWERED).limit_mw == 500_000


def test_exceeding_the_baseline_is_for_the_settings_to_say(policy: Policy) -> None:
    exceeding = GpuContext(INFO, Milliwatts(500_000), exceed_baseline=True)
    assert decide(policy, job("power=max", reservation="urgent"), gpu=exceeding).limit_mw == 700_000


def test_what_is_only_observed_is_marked(policy: Policy) -> None:
    observing = Conditions(0.0, "gpu07", observe=True)
    assert decide(policy, job(), conditions=observing).observe
    assert not decide(policy, job()).observe


def test_the_lowest_of_shared_caps_where_the_policy_says_so(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY + "shared_gpus: lowest\n")
    policy = load_policies(tmp_path / "p.yaml")[0]
    assert decide(policy, job("power=250W"), job("power=300W", number=8)).limit_mw == 250_000
