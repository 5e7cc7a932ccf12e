"""``wattkeeper check --diff``: which jobs would get another cap from another policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wattkeeper.cli.described import gpu_context
from wattkeeper.cli.inforce import site_zone, unix_or_now
from wattkeeper.cli.moment import iso, written
from wattkeeper.cli.output import Column, print_json, print_table, shown
from wattkeeper.config.jobs import DescribedJob, parse_jobs
from wattkeeper.config.policy import load_policies
from wattkeeper.config.settings import Settings, load_settings
from wattkeeper.config.yaml_lines import read_text
from wattkeeper.core.arbitrate import arbitrate
from wattkeeper.core.resolve import resolve
from wattkeeper.errors import WattkeeperError
from wattkeeper.model import Conditions, GpuContext
from wattkeeper.shipped import shipped
from wattkeeper.system.trust import TO_READ
from wattkeeper.units import Milliwatts, format_power, watts

if TYPE_CHECKING:
    from datetime import tzinfo

    from wattkeeper.core.policy import Policy
    from wattkeeper.model import Decision

EXAMPLES = "policies/examples/jobs.yaml"
_MOST_ROWS = 50
"""Changes that are drawn for people. Of recorded jobs there may be thousands."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one policy gives a job. ``limit_mw`` None: the limit is left alone."""

    limit_mw: Milliwatts | None
    observe: bool
    decision: "Decision"

    def differs(self, other: "Answer") -> bool:
        """Whether the job would notice."""
        return (self.limit_mw, self.observe) != (other.limit_mw, other.observe)


@dataclass(frozen=True, slots=True)
class Pair:
    """A job, when it is taken to run, and what each of two policies gives it."""

    job: DescribedJob
    gpu: GpuContext
    at: float
    old: Answer
    new: Answer

    @property
    def differs(self) -> bool:
        """Whether it would get another cap."""
        return self.old.differs(self.new)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for on the command line, in full."""

    old: Path
    new: Path
    zone: "tzinfo"
    at: float
    fixed: bool  # a time was asked for: it counts for recorded jobs as well


def diff(old: Path, new: Path, jobs: str | None, at: datetime | None, config: Path | None, *, as_json: bool) -> bool:
    """Prints which jobs would get another cap; True where there are any. Raises WattkeeperError where a policy, the
    settings or the jobs cannot be read, or none of the jobs is on a model of GPU whose limits are known.

    ``jobs``: a file of described jobs or of records, ``-`` for standard input, None for the examples. ``at``: when
    they run; None: now, and recorded jobs when they began.
    """
    settings = load_settings(config, TO_READ) if config else Settings()
    policies = (load_policies(old, TO_READ)[0], load_policies(new, TO_READ)[0])
    described = _jobs(jobs)
    zone = site_zone(settings)
    asked = _Asked(old, new, zone, unix_or_now(at, zone), at is not None)
    pairs, left_out = compare(described, policies, settings, asked.zone, asked.at, fixed=asked.fixed)
    if not pairs and left_out:
        raise WattkeeperError(f"no job to compare: {left_out[0]}")
    changes = [pair for pair in pairs if pair.differs]
    (_print_json if as_json else _print)(asked, pairs, changes, left_out, policies)
    return bool(changes)


def compare(
    jobs: Sequence[DescribedJob],
    policies: "tuple[Policy, Policy]",
    settings: Settings,
    zone: "tzinfo",
    at: float,
    *,
    fixed: bool,
) -> tuple[list[Pair], list[str]]:
    """What two policies give each job, and why jobs were left out. ``at``: when those run that have no time of their
    own, or all of them where it is ``fixed``."""
    pairs: list[Pair] = []
    left_out: list[str] = []
    for described in jobs:
        try:
            gpu = gpu_context(described.gpu_model, dict.fromkeys(("default", "min", "max", "baseline")), settings.gpus)
        except WattkeeperError as error:
            left_out.append(f"{described.name}: {error}")
            continue
        when = at if fixed or described.at is None else described.at
        conditions = Conditions(when, described.job.node, observe=settings.mode == "observe", zone=zone)
        old, new = (_answer(described, gpu, policy, conditions) for policy in policies)
        pairs.append(Pair(described, gpu, when, old, new))
    return pairs, left_out


def _answer(described: DescribedJob, gpu: GpuContext, policy: "Policy", conditions: Conditions) -> Answer:
    target = arbitrate([resolve(described.job, gpu, policy, conditions)], gpu, policy)
    return Answer(target.limit_mw, target.observe, target.decisions[0])


def _jobs(file: str | None) -> tuple[DescribedJob, ...]:
    """Described in YAML, or recorded as JSON lines: a record begins with a brace."""
    from wattkeeper.cli.recorded import recorded_jobs

    if file is None:
        path = shipped(EXAMPLES)
        return parse_jobs(str(path), read_text(path))
    try:
        with click.open_file(file, encoding="utf-8") as stream:
            lines = list(stream)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise WattkeeperError(f"{file}: cannot be read: {reason}") from error
    name = "standard input" if file == "-" else file
    first = next((line.lstrip() for line in lines if line.strip()), "")
    return recorded_jobs(name, lines) if first.startswith("{") else parse_jobs(name, "".join(lines))


def _print(
    asked: _Asked, pairs: list[Pair], changes: list[Pair], left_out: list[str], policies: "tuple[Policy, Policy]"
) -> None:
    """A table of the changes, and what they come to."""
    if changes:
        columns = [Column(heading) for heading in ("JOB", "OF", "PARTITION", "GPU", "ASKED")]
        columns += [Column("OLD", right=True), Column("NEW", right=True), Column("BY")]
        print_table(columns, [_row(pair) for pair in changes[:_MOST_ROWS]])
        if len(changes) > _MOST_ROWS:
            click.echo(f"… and {len(changes) - _MOST_ROWS} more: --json has them all")
        click.echo()
    if asked.fixed or any(pair.job.at is None for pair in pairs):
        when = f"at {written(asked.at, asked.zone)}"
    else:
        when = "when they began"
    timed = any("schedule" in policy.fields() for policy in policies)
    click.echo(f"{_sum(pairs, changes)}, {when}{'; at other times it may differ (--at)' if timed else ''}")
    unsure = sum(1 for pair in pairs if pair.old.decision.pending | pair.new.decision.pending)
    if unsure:
        click.echo(f"{unsure} of them hinge on what is not known of the job: the lowest cap that could be is shown")
    for why in left_out[:5]:
        click.echo(f"left out: {shown(why)}")
    if len(left_out) > 5:
        click.echo(f"left out: {len(left_out) - 5} more")


def _sum(pairs: list[Pair], changes: list[Pair]) -> str:
    if not changes:
        return f"none of {len(pairs)} jobs would get another cap"
    less = sum(1 for pair in changes if _step(pair) < 0)
    more = sum(1 for pair in changes if _step(pair) > 0)
    return f"{len(changes)} of {len(pairs)} jobs would get another cap ({less} less, {more} more)"


def _step(pair: Pair) -> int:
    """How much more the new policy gives, in milliwatts; 0 where the two do not compare."""
    old, new = pair.old.limit_mw, pair.new.limit_mw
    return 0 if old is None or new is None else new - old


def _row(pair: Pair) -> tuple[str, ...]:
    job = pair.job.job
    rules = [answer.decision.rule or "no rule" for answer in (pair.old, pair.new)]
    of = f"{shown(job.user)}/{shown(job.account)}"
    by = rules[0] if rules[0] == rules[1] else f"{rules[0]} -> {rules[1]}"
    asked = shown(pair.new.decision.asked)
    cells = (pair.job.name, of, job.partition, pair.gpu.info.model)
    return (*map(shown, cells), asked, _limit(pair.old), _limit(pair.new), shown(by))


def _limit(answer: Answer) -> str:
    limit = "left alone" if answer.limit_mw is None else format_power(answer.limit_mw)
    return f"{limit}{'?' if answer.decision.pending else ''}{' observed' if answer.observe else ''}"


def _print_json(
    asked: _Asked, pairs: list[Pair], changes: list[Pair], left_out: list[str], _: "tuple[Policy, Policy]"
) -> None:
    print_json(
        {
            "old": str(asked.old),
            "new": str(asked.new),
            "jobs": len(pairs),
            "changed": len(changes),
            "lower": sum(1 for pair in changes if _step(pair) < 0),
            "higher": sum(1 for pair in changes if _step(pair) > 0),
            "changes": [_as_json(pair, asked) for pair in changes],
            "left_out": left_out,
        }
    )


def _as_json(pair: Pair, asked: _Asked) -> dict[str, object]:
    job = pair.job.job
    fields = {name: getattr(job, name) for name in ("user", "account", "partition", "qos", "job_name")}
    return {
        "name": pair.job.name,
        **{name: value if isinstance(value, str) else None for name, value in fields.items()},
        "node": job.node or None,
        "gpu_model": pair.gpu.info.model,
        "at": iso(pair.at, asked.zone),
        "asked": pair.new.decision.asked,
        "old": _answer_as_json(pair.old),
        "new": _answer_as_json(pair.new),
        "note": pair.job.note or None,
    }


def _answer_as_json(answer: Answer) -> dict[str, object]:
    decision = answer.decision
    return {
        "cap_w": None if answer.limit_mw is None else watts(answer.limit_mw),
        "rule": decision.rule,
        "outcome": decision.outcome.value,
        "observe": answer.observe,
        "pending": sorted(decision.pending),
        "steps": [str(step) for step in decision.steps],
    }
