"""The shipped policies do what their tables say.

The tables, tests/policies/NAME.decisions.yaml, are written by hand: they say what a policy is *meant* to do, each line
with its reason. No flag writes them anew. Whoever changes a policy changes its table, and says why there.
"""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from wattkeeper.cli.described import gpu_context
from wattkeeper.config.jobs import load_jobs
from wattkeeper.config.policy import load_policies
from wattkeeper.config.settings import GpuSettings
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.policy import Policy
from wattkeeper.core.resolve import resolve
from wattkeeper.model import Conditions, JobFacts, Target

REPO = Path(__file__).resolve().parents[2]
FOLDER = REPO / "policies"
TABLES = REPO / "tests" / "policies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
JOBS = {found.name: found for found in load_jobs(FOLDER / "examples" / "jobs.yaml")}
NO_LIMITS = dict.fromkeys(("default", "min", "max", "baseline"))
ANY_TIME = datetime(2027, 3, 10, 3, 0, tzinfo=UTC)


@cache
def policy(name: str) -> Policy:
    found, _ = load_policies(FOLDER / f"{name}.yaml")
    return found


def table(name: str) -> list[dict[str, Any]]:
    # as text throughout: YAML's own idea of a date is not ours
    rows: list[dict[str, Any]] = yaml.load((TABLES / f"{name}.decisions.yaml").read_text(), yaml.BaseLoader)  # noqa: S506
    return rows


def decide(name: str, row: dict[str, Any]) -> Target:
    found = JOBS[row["job"]]
    other = dict(row.get("with", {}))
    gpu = gpu_context(other.pop("gpu_model", found.gpu_model), NO_LIMITS, GpuSettings())
    job: JobFacts = replace(found.job, **other)
    at = datetime.fromisoformat(row["at"]).replace(tzinfo=UTC) if "at" in row else ANY_TIME
    conditions = Conditions(at.timestamp(), job.node, zone=UTC)
    return arbitrate([resolve(job, gpu, policy(name), conditions)], gpu, policy(name))


def _rows() -> list[Any]:
    tables = [path.name.removesuffix(".decisions.yaml") for path in sorted(TABLES.glob("*.decisions.yaml"))]
    return [
        pytest.param(name, row, id=f"{name}-{row['job']}-{number}")
        for name in tables
        for number, row in enumerate(table(name))
    ]


@pytest.mark.parametrize(("name", "row"), _rows())
def test_a_decision_is_the_one_that_was_meant(name: str, row: dict[str, Any]) -> None:
    target = decide(name, row)
    (decision,) = target.decisions
    assert {
        "cap": (target.limit_mw or 0) / 1000,
        "rule": decision.rule,
        "outcome": decision.outcome.value,
        "observed": target.observe,
    } == {
        "cap": float(row["cap"]),
        "rule": row["rule"],
        "outcome": row["outcome"],
        "observed": row.get("observed", "false") == "true",
    }, "\n".join([row["reason"], *map(str, decision.steps)])


@pytest.mark.parametrize("name", NAMES)
def test_every_policy_decides_about_every_example_job(name: str) -> None:
    rows = table(name)
    assert {row["job"] for row in rows} == set(JOBS)
    assert all(len(row["reason"]) > 10 for row in rows)
    questions = [(row["job"], row.get("at"), str(row.get("with"))) for row in rows]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_and_ceiling_has_a_line_in_the_table(name: str) -> None:
    """One that no line is about could be anything."""
    decisions = [decide(name, row).decisions[0] for row in table(name)]
    assert {rule.name for rule in policy(name).rules} == {decision.rule for decision in decisions}
    bound = {
        hit.name
        for decision in decisions
        for hit in decision.ceilings
        if decision.cap_mw is not None and hit.cap_mw < decision.cap_mw
    }
    assert {ceiling.name for ceiling in policy(name).ceilings} == bound


@pytest.mark.parametrize("name", NAMES)
def test_it_passes_check_without_a_doubt_and_says_for_whom_it_is(name: str) -> None:
    _, doubts = load_policies(FOLDER / f"{name}.yaml")
    assert doubts == ()
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")


def test_every_table_is_of_a_policy() -> None:
    assert sorted(path.name for path in TABLES.iterdir()) == sorted(f"{name}.decisions.yaml" for name in NAMES)
