"""The shipped rules and alerts: promtool's own tests of them, and that they speak of what there is."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.lab.spec import REPO

from wattkeeper.exporters.prometheus import FAMILIES, PREFIX

FOLDER = REPO / "deploy" / "prometheus"
RUNBOOK = re.compile(r"(?P<page>docs/[\w./-]+)#(?P<section>[\w-]+): \S.*")
RECORDED = re.compile(r"\bwattkeeper:\w+:\w+")
METRIC = re.compile(r"\bwattkeeper_\w+")

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="not installed on this machine: promtool")


def rules(name: str) -> list[dict[str, Any]]:
    """Every rule of a file of groups."""
    return [rule for group in yaml.safe_load((FOLDER / name).read_text())["groups"] for rule in group["rules"]]


def promtool(*words: str, folder: Path = FOLDER) -> tuple[int, str]:
    done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, timeout=60)  # noqa: S607
    return done.returncode, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("words", [("rules", "rules.yml"), ("rules", "alerts.yml"), ("config", "scrape.yml")])
def test_promtool_takes_the_file(words: tuple[str, str]) -> None:
    status, said = promtool("check", *words)
    assert status == 0, said


@needs_promtool
def test_the_documented_steps_make_a_configuration_that_prometheus_takes(tmp_path: Path) -> None:
    """Commands and `rule_files` of operations.md, with scrape.yml both where its head says and in prometheus.yml."""
    text = (REPO / "docs" / "operations.md").read_text()
    section = text[text.index("\n## Prometheus\n") :].partition("\n### ")[0].replace("/etc/prometheus", str(tmp_path))
    blocks = re.findall(r"^```\w*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    steps, settings = (next(block for block in blocks if word in block) for word in ("promtool check", "rule_files:"))
    shipped = (FOLDER / "scrape.yml").read_text()
    place = re.search(r"scrape_config_files: \[/etc/prometheus/([^\]]+)\]", shipped)
    assert place
    (tmp_path / place[1]).parent.mkdir(parents=True)
    (tmp_path / place[1]).write_text(shipped)
    done = subprocess.run(["sh", "-ec", steps], cwd=REPO, capture_output=True, text=True, timeout=60)  # noqa: S607
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "prometheus.yml").write_text(settings + shipped)
    status, said = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert status == 0, said
    assert "2 rule files found" in said


@needs_promtool
def test_promtool_finds_every_rule_right() -> None:
    status, said = promtool("test", "rules", "tests.yml")
    assert status == 0, said


@needs_promtool
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("or min_over_time", "or 0 * min_over_time"),  # what Prometheus first sees would be billed again
        ("[1h] offset 5m", "[5m] offset 5m"),  # what was charged over an outage would be lost
        (") >= 0\n", ") >= -1e300\n"),  # a lost ledger would be paid back
        ("topk by (cluster, slurm_job_id) (1, wattkeeper_job_info)", "wattkeeper_job_info"),
    ],
)
def test_promtool_finds_a_rule_that_is_wrong(tmp_path: Path, old: str, new: str) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    text = (FOLDER / "rules.yml").read_text()
    assert old in text
    (tmp_path / "rules.yml").write_text(text.replace(old, new))
    assert promtool("test", "rules", "tests.yml", folder=tmp_path)[0] != 0


def queries(page: Path) -> list[str]:
    """What a document's blocks of PromQL ask, without their comments."""
    blocks = re.findall(r"^```promql\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"^#.*\n", "", part, flags=re.MULTILINE) for block in blocks for part in block.split("\n\n")]
    return [line.strip() for line in lines]


DOCUMENTED = queries(FOLDER / "README.md") + queries(REPO / "docs" / "metrics.md")


@needs_promtool
def test_prometheus_takes_the_documented_queries(tmp_path: Path) -> None:
    rules = [{"record": f"documented:{at}", "expr": query} for at, query in enumerate(DOCUMENTED)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "documented", "rules": rules}]}))
    status, said = promtool("check", "rules", "rules.yml", folder=tmp_path)
    assert (status, len(rules) > 5) == (0, True), said


def test_documented_queries_of_energy_are_of_what_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules("rules.yml")}
    for query in DOCUMENTED:
        assert set(RECORDED.findall(query)) <= recorded
        assert "account_energy_joules_total" not in query, (
            "increase() guesses at a window's edges: ask what is recorded"
        )


@needs_promtool
@pytest.mark.parametrize("at", ["40d", "40d13h"])
def test_the_documented_30_days_are_30_days(tmp_path: Path, at: str) -> None:
    """At midnight of UTC too. Two partitions of cluster a, and one of b, use 1 kWh or 2 on each day."""
    (query,) = queries(FOLDER / "README.md")
    a_day = {("a", "gpu"): 3.6e6, ("a", "debug"): 3.6e6, ("b", "gpu"): 7.2e6}
    series = [
        {
            "series": "wattkeeper:account_energy_joules:increase1d"
            f'{{account="ml",partition="{partition}",domain="gpu",cluster="{cluster}"}}',
            "values": f"{joules}x1000",
        }
        for (cluster, partition), joules in a_day.items()
    ]
    wanted = [{"labels": f'{{account="ml",cluster="{cluster}"}}', "value": 60} for cluster in "ab"]
    asked = [{"expr": query, "eval_time": at, "exp_samples": wanted}]
    tests = [{"interval": "1h", "input_series": series, "promql_expr_test": asked}]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"evaluation_interval": "1h", "tests": tests}))
    status, said = promtool("test", "rules", "tests.yml", folder=tmp_path)
    assert status == 0, said


def test_each_rule_and_alert_has_a_test() -> None:
    tests = (FOLDER / "tests.yml").read_text()
    untested = [rule["record"] for rule in rules("rules.yml") if f"{rule['record']}{{" not in tests]
    untested = [name for name in untested if f"'{name}'" not in tests]
    untested += [rule["alert"] for rule in rules("alerts.yml") if f"alertname: {rule['alert']}" not in tests]
    assert untested == []


def test_rules_speak_of_metrics_that_there_are() -> None:
    known = {PREFIX + family.name for family in FAMILIES}
    recorded = {rule["record"] for rule in rules("rules.yml")}
    for rule in [*rules("rules.yml"), *rules("alerts.yml")]:
        assert set(METRIC.findall(rule["expr"])) <= known, rule
        assert set(RECORDED.findall(rule["expr"])) <= recorded, rule


def test_rules_keep_labels_that_the_metrics_have() -> None:
    labels = {PREFIX + family.name: set(family.labels) for family in FAMILIES}
    by = re.search(r"sum by \(([^)]*)\)", rules("rules.yml")[0]["expr"])
    assert by
    assert set(by[1].split(", ")) - {"cluster"} == labels["wattkeeper_account_energy_joules_total"]


@pytest.mark.parametrize("alert", rules("alerts.yml"), ids=lambda rule: str(rule["alert"]))
def test_each_alert_says_how_bad_it_is_and_names_its_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    runbook = RUNBOOK.fullmatch(alert["annotations"]["runbook"])
    assert runbook
    headings = re.findall(r"^#+ (.*)$", (REPO / runbook["page"]).read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert runbook["section"] in anchors
