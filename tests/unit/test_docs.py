"""The documents say what is so: commands, YAML, links, metrics, tests.

``python tests/unit/test_docs.py`` writes docs/metrics.md anew.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from wattkeeper.cli.check import check
from wattkeeper.cli.main import COMMANDS
from wattkeeper.exporters.prometheus import FAMILIES, PREFIX, Family

REPO = Path(__file__).resolve().parents[2]
METRICS_PAGE = REPO / "docs" / "metrics.md"
SECURITY_PAGE = REPO / "docs" / "security.md"
PAGES = sorted([*REPO.glob("*.md"), *(REPO / "deploy").rglob("*.md"), *(REPO / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```yaml\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`(?P<file>tests/[a-z0-9_/]+\.py)::(?P<name>[A-Za-z0-9_:]+)`")
_LINK = re.compile(r"\[[^\]]+\]\((?P<to>[^)\s]+)\)")

METRICS_HEAD = """\
# Metrics

<!-- Made from daemon/wattkeeper/exporters/prometheus.py by `.venv/bin/python tests/unit/test_docs.py`. -->

Prometheus scrapes `http://127.0.0.1:9745/metrics` (the setting `metrics.listen`; `null` closes the port). The same page
is on the unix socket `/run/wattkeeper/read.sock`. A scrape reads no device: it shows the agent's last reading.
[TLS, certificates and passwords](metrics-access.md) are `metrics.web_config`'s.

- `gpu` is the minor number, the N of `/dev/nvidiaN`; `uuid` is NVML's.
- What is not known is left out, never 0. A reading older than three intervals is left out as well.
- The series of a finished job stay for `metrics.grace` (5 m).
- `metrics.job_labels`: `id` leaves `user` and `account` of `job_info` empty, `full` fills them in, `none` leaves the
  series of jobs out. Without the setting it is `full` on a port that lets in only who shows a password or a client
  certificate, and `id` everywhere else.
- A job id stands for the run that began last: of a job that was requeued, and of two jobs of one id where two clusters
  share the node. The energy of the others is in the series of accounts, in the records and in `wattkeeper report`.
- For each GPU: energy of jobs + idle + unattributed = what its counter gained since the agent first read it. These
  show what the ledger has on the disk, which is at most 10 s behind: so none of them goes back when an agent is killed.
  As long as the ledger cannot be read, after a start, totals over restarts (accounts, idle, unattributed) are absent.
- The energy of an account is there, and carries its name, whatever `job_labels` says. It goes on over restarts.
- The energy of a job or an account is shown to each client at its beginning first, so that `increase()` misses nothing
  of a job that is shorter than a scrape: [zero-first](decisions/zero-first.md).
- A card without an energy counter has no `gpu_energy_joules_total`; its jobs are metered by its power. One that
  does not tell that either has no series of energy.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
"""

METRICS_TAIL = """
## Values of labels

| metric | label | values |
| --- | --- | --- |
| `agent_info` | `mode` | `enforce`, `observe` |
| `cap_writes_total` | `cause` | `start`, `end`: a job's; `drift`: a repair; `schedule`: time alone; \
`lookup`: a late answer about a job; `recovery`; `reload`; `retry` |
| `cap_write_errors_total` | `error` | `permission`, `unsupported`, `invalid`, `lost`, `no_driver`, `timeout`, \
`not_taken`, `state`, `no_actuator`: nobody answers who may set limits; `again` |
| `hook_events_total` | `event` | `prolog`, `epilog` |
| `hook_events_total` | `outcome` | `applied`; `failed`: a limit could not be set; `no_gpu`; `duplicate`; `late`; \
`unknown_job`; `unmapped`: Slurm's GPU numbers fit no device; `invalid`; \
`refused`: what lay in the spool under an event's name was not Slurm's |
| `account_energy_joules_total` | `domain` | `gpu` |
| `energy_gaps_total` | `cause` | `outage`: its holders changed, and the counter was not read then, or a card \
without a counter was not looked at; `restart`: the counter began anew; `jump`: it moved as no GPU can draw |
| `requests_total` | `outcome` | `none`, `granted`, `clamped`, `denied`, `malformed` |
| `slurm_lookups_total` | `source` | `pyslurm`; `scontrol` (and `squeue`, where its text settles nothing) |
| `slurm_lookups_total` | `outcome` | `ok`, `timeout`, `refused`; `wrong`: of another job, or garbage; `not_found` |
| `drift_total` | `cause` | `writer`: another program; `reset`: driver reload or GPU reset |
| `drift_total` | `outcome` | `repaired`, `reported`, `yielded` |
| `source_up` | `source` | `nvml`; `ledger`: 0 while it cannot be written and the agent goes on in memory; \
`actuator`: 0 while nobody answers who may set limits (absent with `run --single`); `slurm`, `groups`: 0 while a job \
waits for an answer of Slurm or of the user database (absent where no policy needs one, or nobody was asked) |

## Questions they answer

```promql
# Jobs that started without their cap
increase(wattkeeper_hook_events_total{event="prolog", outcome=~"failed|unmapped|invalid"}[1h]) > 0

# GPUs above the limit that policy wants
wattkeeper_gpu_power_limit_watts - wattkeeper_gpu_power_limit_target_watts > 1

# GPUs that are not capped now: given up to another program, or held by an admin
wattkeeper_gpu_drift_yielded == 1 or wattkeeper_gpu_held == 1

# GPUs that several jobs hold, of which one at least would have another limit alone
wattkeeper_gpu_sharing_conflicts > 0

# A policy that could not be read
wattkeeper_policy_last_reload_successful == 0

# The 99th percentile of the time from a Prolog to limits that read back
histogram_quantile(0.99, rate(wattkeeper_cap_apply_seconds_bucket{event="prolog"}[1h]))

# Energy of each account in the last 24 whole hours, in kWh, on the GPUs of all nodes of a cluster: a recorded rule, as
# increase() is several percent off for short jobs (deploy/prometheus/rules.yml)
sum by (cluster, account) (wattkeeper:account_energy_joules:increase1d{domain="gpu"}) / 3.6e6

# Energy that nobody can be billed for
increase(wattkeeper_energy_gaps_total[1h]) > 0

# Share of time in which each GPU was held back by its limit
rate(wattkeeper_gpu_power_capped_seconds_total[15m])
```
"""


def metrics_page() -> str:
    """The page as it should be."""
    return METRICS_HEAD + "".join(map(_row, FAMILIES)) + METRICS_TAIL


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
    return f"| `{PREFIX}{family.name}` | {family.kind} | {labels} | {family.help} |\n"


def _relative(page: Path) -> str:
    return str(page.relative_to(REPO))


def _examples() -> list[tuple[str, str]]:
    """Name and text of every fenced YAML block."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in _FENCE.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            found.append((f"{_relative(page)}:{line}", block["text"]))
    return found


@cache
def _tests_of(file: Path) -> frozenset[str]:
    """The names of a file's tests as pytest takes them, ``test_x`` or ``TestY::test_x``."""
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    places: list[tuple[str, list[ast.stmt]]] = [("", tree.body), *((f"{node.name}::", node.body) for node in classes)]
    return frozenset(
        prefix + node.name
        for prefix, body in places
        for node in body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def test_metrics_page_is_current() -> None:
    mend = f"run `.venv/bin/python {_relative(Path(__file__))}`"
    assert METRICS_PAGE.read_text(encoding="utf-8") == metrics_page(), mend


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_is_documented(command: str) -> None:
    assert any(f"wattkeeper {command}" in page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize(("place", "text"), _examples(), ids=lambda value: value if "\n" not in value else "")
def test_yaml_examples_pass_check(place: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(text, encoding="utf-8")
    result = CliRunner().invoke(check, [str(file)])
    assert result.exit_code == 0, f"{place}: {result.output}"


def test_metrics_that_are_named_exist() -> None:
    known = {PREFIX + family.name for family in FAMILIES}
    for page in PAGES:
        named = re.findall(rf"\b{PREFIX}[a-z_]+", page.read_text(encoding="utf-8"))
        assert {name.removesuffix("_bucket") for name in named} <= known, _relative(page)


def test_there_are_yaml_examples() -> None:
    assert len(_examples()) >= 5


def test_the_readme_leads_to_every_decision() -> None:
    known = {path.relative_to(REPO).as_posix() for path in (REPO / "docs" / "decisions").glob("*.md")}
    assert set(re.findall(r"\(([a-z/]+/decisions/[^)]+)\)", (REPO / "README.md").read_text())) == known


@pytest.mark.parametrize("page", PAGES, ids=_relative)
def test_relative_links_resolve(page: Path) -> None:
    for link in _LINK.finditer(page.read_text(encoding="utf-8")):
        to = link["to"].partition("#")[0]
        if to and "://" not in to:
            assert (page.parent / to).exists(), f"{_relative(page)}: {link['to']}"


@pytest.mark.parametrize("page", PAGES, ids=_relative)
def test_tests_that_are_named_exist(page: Path) -> None:
    named = [(found["file"], found["name"]) for found in _TEST.finditer(page.read_text(encoding="utf-8"))]
    assert [f"{file}::{name}" for file, name in named if name not in _tests_of(REPO / file)] == []


def test_each_claim_about_security_names_its_test() -> None:
    """What somebody cannot do is a list, and each of its items names a test."""
    text = SECURITY_PAGE.read_text(encoding="utf-8")
    lists = re.findall(r"\*\*They cannot\*\*\n\n(.+?)\n\n(?!  )", text, re.DOTALL)
    claims = [claim for found in lists for claim in re.split(r"^- ", found, flags=re.MULTILINE) if claim]
    assert len(lists) == 4
    assert [claim for claim in claims if not _TEST.search(claim)] == []
    assert text.count("tests/") == len(_TEST.findall(text)), "a test is named in a way that is not looked at"


if __name__ == "__main__":
    METRICS_PAGE.write_text(metrics_page(), encoding="utf-8")
