"""``wattkeeper check``: settings and policies, validated before they are used."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import click

from wattkeeper.cli import HELP
from wattkeeper.cli.moment import MomentType
from wattkeeper.config.policy import POLICY_KEYS, load_policies
from wattkeeper.config.settings import DEFAULT_PATH, SETTINGS_KEYS, load_settings, settings_file
from wattkeeper.config.web import WEB_KEYS, WebConfig, parse_web
from wattkeeper.config.yaml_lines import Table, parse, read_text
from wattkeeper.core.policy import Policy
from wattkeeper.errors import ConfigError, Problem, WattkeeperError
from wattkeeper.system.trust import DRAFT, OURS, Trust


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one file or folder. ``kind`` None: it could not be told what it is."""

    file: str
    kind: str | None
    text: str
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """True where it can be used."""
        return all(problem.warning for problem in self.problems)


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  wattkeeper check                       what this node's agent would read
  wattkeeper check new-policy.yaml       one policy, before it is installed
  wattkeeper check -W policies.d         a folder as one policy; warnings count as errors (for CI)
  wattkeeper check --json | jq .problems
  wattkeeper check --models p.yaml       and which caps some model of GPU cannot take
  wattkeeper check --diff old.yaml new.yaml                which example jobs would get another cap?
  wattkeeper check --diff old new --jobs 2027-07-01.jsonl  and which of those that ran that day?
  wattkeeper check --schema policy > policy.schema.json    for an editor

\b
Each problem is one line: FILE:LINE: PATH: what is wrong (allowed: what may stand there).
Exit codes: 0 usable, perhaps with warnings; 1 something cannot be used; 2 wrong use.
With --diff, as of diff(1): 0 no job gets another cap; 1 some do; 2 something cannot be used.""",
)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option(
    "--config", type=click.Path(path_type=Path), help=f"Settings to check, with their policies [{DEFAULT_PATH}]."
)
@click.option("--models", is_flag=True, help="Also warn of caps that some known model of GPU cannot take.")
@click.option(
    "--diff",
    "policies",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="OLD NEW",
    help="Which jobs would get another cap from policy NEW than from OLD.",
)
@click.option(
    "--jobs",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="For --diff: jobs as in policies/examples/jobs.yaml, or end-of-job records [those examples].",
)
@click.option(
    "--at", type=MomentType(), metavar="TIME", help="For --diff: when they run [now; recorded jobs: when they began]."
)
@click.option("--schema", type=click.Choice(["policy", "settings"]), help="Print the JSON Schema of such files.")
@click.option("-W", "--strict-warnings", is_flag=True, help="Exit 1 on warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(
    context: click.Context,
    files: tuple[Path, ...],
    config: Path | None,
    models: bool,
    policies: tuple[Path, Path] | None,
    jobs: str | None,
    at: datetime | None,
    schema: Literal["policy", "settings"] | None,
    strict_warnings: bool,
    as_json: bool,
) -> None:
    """Validate settings and policies, and show every mistake with its line.

    Without FILE: the agent's settings, with the policies and the web_config that they name. FILE is a settings file, a
    policy file, a web_config, or a folder of policy files that make one policy together; which of them it is shows in
    its keys. Each FILE is checked by itself, and may belong to anybody until it is installed. Nothing is changed, and
    no agent is needed; a running one takes files over with `systemctl reload wattkeeper`.

    --diff compares two policies instead, on GPUs of each job's model as it is by default, or as --config declares.
    """
    if (jobs or at) and not policies:
        raise click.UsageError("--jobs and --at go with --diff OLD NEW")
    if (policies or schema) and (files or models or strict_warnings or (policies and schema)):
        raise click.UsageError("--diff OLD NEW and --schema stand by themselves")
    if schema:
        click.echo(_schema(schema))
        return
    if policies:
        context.exit(_diff(*policies, jobs, at, config, as_json=as_json))
    if files and config:
        raise click.UsageError("name FILEs, or --config, not both")
    reports = (
        [_check_file(file, models=models) for file in dict.fromkeys(files)]
        if files
        else _check_installed(settings_file(config) or DEFAULT_PATH, models=models)
    )
    click.echo(_as_json(reports) if as_json else _as_text(reports))
    doubtful = strict_warnings and any(report.problems for report in reports)
    context.exit(0 if all(report.ok for report in reports) and not doubtful else 1)


def _schema(kind: Literal["policy", "settings"]) -> str:
    from wattkeeper.config.schema import schemas

    return json.dumps(schemas()[kind], indent=2, ensure_ascii=False)


def _diff(
    old: Path, new: Path, jobs: str | None, at: datetime | None, config: Path | None, *, as_json: bool
) -> Literal[0, 1, 2]:
    """The exit code. What cannot be used is told here, for it is not what was asked about."""
    from wattkeeper.cli.diff import diff

    try:
        return 1 if diff(old, new, jobs, at, config, as_json=as_json) else 0
    except WattkeeperError as error:
        click.echo(f"wattkeeper: {error}", err=True)
        return 2


def _check_installed(config: Path, *, models: bool) -> list[Report]:
    """The settings and, where they can be read, what they name: policies, and who may scrape."""
    try:
        settings = load_settings(config)
    except ConfigError as error:
        return [Report(str(config), "settings", "", error.problems)]
    reports = [
        Report(str(config), "settings", f"settings, mode {settings.mode}", ()),
        _check_policy(settings.policies, OURS, models=models),
    ]
    web_config = settings.metrics.web_config
    return reports if web_config is None else [*reports, _check_web(web_config)]


def _check_file(file: Path, *, models: bool) -> Report:
    try:
        kind = "policy" if file.is_dir() else _kind_of(file)
        if kind == "policy":
            return _check_policy(file, DRAFT, models=models)
        if kind == "web config":
            return _web_report(file, parse_web(file, read_text(file, DRAFT)))
        settings = load_settings(file, DRAFT)
    except ConfigError as error:
        return Report(str(file), None, "", error.problems)
    return Report(str(file), "settings", f"settings, mode {settings.mode}", ())


def _kind_of(file: Path) -> str:
    """``settings``, ``policy`` or ``web config``, by the keys at the top. Raises ``ConfigError`` for others."""
    root, _ = parse(str(file), read_text(file, DRAFT))
    keys = {key.value for key, _ in root.entries} if isinstance(root, Table) else set[str]()
    settings, policy = len(keys & set(SETTINGS_KEYS)), len(keys & set(POLICY_KEYS))
    if keys & set(WEB_KEYS) and not settings and not policy:
        return "web config"
    if not settings and not policy:
        allowed = f"(allowed: {', '.join(POLICY_KEYS)}; or {', '.join(SETTINGS_KEYS)})"
        text = f"neither a policy nor settings: no key at the top is of either {allowed}"
        raise ConfigError((Problem(str(file), 1, "", text),))
    return "settings" if settings > policy else "policy"


def _check_policy(path: Path, trust: Trust, *, models: bool) -> Report:
    try:
        policy, warnings = load_policies(path, trust)
    except ConfigError as error:
        return Report(str(path), "policy", "", error.problems)
    if models:
        warnings = _by_model(policy, warnings)
    parts = [_count(len(policy.rules), "rule"), _count(len(policy.ceilings), "ceiling")]
    parts.append(_count(len(policy.profiles), "profile"))
    return Report(str(path), "policy", f"policy of {', '.join(parts)}", warnings)


def _by_model(policy: Policy, warnings: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """With the warnings for each known model in place of those about all models together."""
    from wattkeeper.cli.ranges import out_of_range
    from wattkeeper.config.checks import out_of_known_range

    coarse = set(out_of_known_range(policy))
    found = [*(warning for warning in warnings if warning not in coarse), *out_of_range(policy)]
    return tuple(sorted(found, key=lambda problem: (problem.file, problem.line)))


def _check_web(path: Path) -> Report:
    """``metrics.web_config`` with the certificates that it names, as the agent reads them."""
    from wattkeeper.api.web_file import WebFile  # with it comes the half of an agent

    try:
        return _web_report(path, WebFile(path).current().config)
    except ConfigError as error:
        return Report(str(path), "web config", "", error.problems)


def _web_report(path: Path, config: WebConfig) -> Report:
    text = f"web config, {', '.join(sorted(config.guards)) or 'which keeps nobody out'}"
    return Report(str(path), "web config", text, config.notes)


def _as_text(reports: list[Report]) -> str:
    """Each problem on its line, then what is usable, then the sum."""
    problems = [problem for report in reports for problem in report.problems]
    lines = [str(problem) for problem in problems]
    lines += [f"{report.file}: fine: {report.text}" for report in reports if report.ok]
    if problems:
        errors, warnings = _sums(problems)
        lines.append(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}")
    return "\n".join(lines)


def _as_json(reports: list[Report]) -> str:
    problems = [problem for report in reports for problem in report.problems]
    errors, warnings = _sums(problems)
    return json.dumps(
        {
            "ok": not errors,
            "errors": errors,
            "warnings": warnings,
            "files": [{"file": report.file, "kind": report.kind, "ok": report.ok} for report in reports],
            "problems": [
                {
                    "file": problem.file,
                    "line": problem.line or None,
                    "path": problem.path,
                    "severity": "warning" if problem.warning else "error",
                    "text": problem.text,
                }
                for problem in problems
            ],
        },
        indent=2,
    )


def _sums(problems: Iterable[Problem]) -> tuple[int, int]:
    """How many errors and how many warnings."""
    warnings = [problem.warning for problem in problems]
    return warnings.count(False), warnings.count(True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
