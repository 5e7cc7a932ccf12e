"""docs/policy.md: each table under a policy is what jobs get from it, and each command prints what stands there.

WATTKEEPER_UPDATE_GOLDEN=1 writes what commands print anew; tables are written by hand, for they say what is meant.
"""

import os
import re
import shlex
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from wattkeeper.cli.described import gpu_context
from wattkeeper.cli.main import cli
from wattkeeper.config.policy import parse_policies
from wattkeeper.config.policy_shape import CEILING, CHOICE, POLICY, REQUESTS, RULE, SCHEDULE, WHEN
from wattkeeper.config.settings import GpuSettings
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.policy import Policy
from wattkeeper.core.resolve import resolve, resolve_idle
from wattkeeper.model import UNKNOWN, Conditions, GpuContext, JobFacts, JobKey, Target
from wattkeeper.units import format_power

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "policy.md"
ZONE = ZoneInfo("Europe/Zurich")
_YAML = re.compile(r"^```yaml\n(?P<policy>.*?)^```$", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(r"^\| job \|(?P<rest>.*(?:\n\|.*)*)", re.MULTILINE)
_CONSOLE = re.compile(r"^```console\n\$ wattkeeper (?P<command>.*)\n(?P<printed>(?:.*\n)*?)```$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """A line of a table: its cells by their headings, and the policy that it stands under."""

    policy: str
    line: int
    cells: dict[str, str]

    def __str__(self) -> str:
        return f"line {self.line}: {' '.join(self.cells.values())}"


def _before(text: str, at: int) -> str:
    return [found["policy"] for found in _YAML.finditer(text) if found.end() <= at][-1]


def rows() -> list[Row]:
    text = PAGE.read_text(encoding="utf-8")
    found = []
    for table in _TABLE.finditer(text):
        first = text.count("\n", 0, table.start()) + 1
        lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].splitlines()]
        for at, cells in enumerate(lines[2:], start=first + 2):
            found.append(Row(_before(text, table.start()), at, dict(zip(lines[0], _bare(cells), strict=True))))
    return found


def _bare(cells: list[str]) -> list[str]:
    return [cell.strip(" |") for cell in cells]


def _job(text: str, asks: str, number: int) -> JobFacts:
    """``user=bob gpus=2 qos=?``; ``?`` is not known."""
    fields = dict(pair.split("=", 1) for pair in text.split() if pair != "any")
    asks = fields.pop("asks", asks)
    groups = fields.pop("group", "")
    gpus, nodes = (int(fields.pop(name, "1")) for name in ("gpus", "num_nodes"))
    texts: dict[str, Any] = {name: UNKNOWN if value == "?" else value for name, value in fields.items()}
    job = JobFacts(
        key=JobKey("lab", number, "r0"),
        uid=sum(fields.get("user", "").encode()),
        qos=None,
        job_name=None,
        comment=None if asks == "-" else f"power={asks}",
        num_nodes=nodes,
        gpus=gpus,
        groups=frozenset(groups.split(",")),
    )
    return replace(job, **texts)


def _target(row: Row, policy: Policy, gpu: GpuContext) -> Target:
    cells = row.cells
    at = datetime.strptime(cells["at"], "%a %Y-%m-%d %H:%M").replace(tzinfo=ZONE) if "at" in cells else None
    if at:
        assert f"{at:%a}" == cells["at"][:3]
    now_at = at.timestamp() if at else 0.0
    if cells["job"].startswith("idle "):
        conditions = Conditions(now_at, cells["job"].rpartition("=")[2], zone=ZONE)
        return arbitrate([resolve_idle(gpu, policy, conditions)], gpu, policy)
    jobs = [_job(cells["job"], cells.get("asks", "-"), 1)]
    jobs += [_job(cells["and with it"], "-", 2)] if "and with it" in cells else []
    return arbitrate([resolve(job, gpu, policy, Conditions(now_at, zone=ZONE)) for job in jobs], gpu, policy)


@pytest.mark.parametrize("row", rows(), ids=str)
def test_a_job_gets_what_the_guide_says(row: Row) -> None:
    policy, _ = parse_policies([("policy.yaml", row.policy)])
    gpu = gpu_context(row.cells["on"], dict.fromkeys(("default", "min", "max", "baseline")), GpuSettings())
    target = _target(row, policy, gpu)
    assert target.limit_mw is not None
    gets = f"{format_power(target.limit_mw)}{', observed' if target.observe else ''}"
    steps = "\n".join(map(str, target.decisions[0].steps))
    assert gets == row.cells["gets"], steps
    if "by" in row.cells:
        assert (target.decisions[0].rule or "-") == row.cells["by"], steps


def test_the_guide_has_an_example_of_everything() -> None:
    """Every key stands in a policy that a table follows; those of ``when`` and of times are explained one by one."""
    text = PAGE.read_text(encoding="utf-8")
    policies = "".join({row.policy for row in rows()})
    for shape in (POLICY, RULE, CEILING, REQUESTS, CHOICE, WHEN, SCHEDULE):
        assert [key for key in shape.keys if not re.search(rf"\b{key}:", policies)] == []
    for shape in (WHEN, SCHEDULE):
        assert [key for key in shape.keys if f"`{key}`" not in text] == []


def test_every_rule_and_ceiling_of_the_guide_is_met() -> None:
    met = {(row.policy, row.cells["by"]) for row in rows() if "by" in row.cells}
    for text in {row.policy for row in rows() if "by" in row.cells}:
        for rule in parse_policies([("policy.yaml", text)])[0].rules:
            assert (text, rule.name) in met, rule.name


def test_commands_print_what_the_guide_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the policy above it in ``policy.yaml``, and those that begin with a name under that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Europe/Zurich")
    text = PAGE.read_text(encoding="utf-8")
    assert len(_CONSOLE.findall(text)) >= 2
    for name, policy in re.findall(r"^```yaml\n(# (?:[a-z]+\.yaml)\n)(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        Path(name.strip("# \n")).write_text(f"{name}{policy}", encoding="utf-8")

    def run(found: re.Match[str]) -> str:
        Path("policy.yaml").write_text(_before(text, found.start()), encoding="utf-8")
        result = CliRunner().invoke(cli, shlex.split(found["command"]))
        assert result.exit_code in {0, 1}, result.output
        return f"```console\n$ wattkeeper {found['command']}\n{result.output}```"

    current = _CONSOLE.sub(run, text)
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN") == "1":
        PAGE.write_text(current, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == current
