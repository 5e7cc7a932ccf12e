"""Jobs as the agent's end-of-job records tell of them (docs/records.md), to try another policy on."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from wattkeeper.config.jobs import DescribedJob
from wattkeeper.errors import ConfigError, Problem
from wattkeeper.model import UNKNOWN, JobFacts, JobKey
from wattkeeper.text import printable


def recorded_jobs(file: str, lines: Iterable[str]) -> tuple[DescribedJob, ...]:
    """A job for each run and each model of GPU that it held, in the order of the records; a record that comes twice
    counts once. What records do not hold (nodes, reservation, constraint, groups) is not known of them.

    Raises ``ConfigError`` with every line that is no record of a version that is known.
    """
    jobs: dict[tuple[object, ...], DescribedJob] = {}
    problems: list[Problem] = []
    for at, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _record(line)
            run = tuple(record[name] for name in ("cluster", "job_id", "run", "node", "started_at"))
            jobs.update(((run, job.gpu_model), job) for job in _jobs(record) if (run, job.gpu_model) not in jobs)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problems.append(Problem(file, at, "", f"no end-of-job record of version 1: {_why(error)}"))
    if problems:
        raise ConfigError(tuple(problems))
    return tuple(jobs.values())


def _record(line: str) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise TypeError("not an object")
    if record["v"] != 1:
        raise ValueError("another version")
    return record


def _why(error: Exception) -> str:
    match error:
        case KeyError():
            return f"{error} is missing"
        case json.JSONDecodeError():
            return "not a line of JSON"
        case _:
            return printable(str(error))


def _jobs(record: Mapping[str, Any]) -> list[DescribedJob]:
    asked = record["asked"]
    gpus = record["gpus"]
    job = JobFacts(
        key=JobKey(str(record["cluster"] or ""), int(record["job_id"]), str(record["run"])),
        uid=int(record["uid"]),
        user=_text(record["user"]),
        account=_text(record["account"]),
        partition=_text(record["partition"]),
        qos=_text(record["qos"]) or UNKNOWN,
        job_name=_text(record["job_name"]) or UNKNOWN,
        reservation=UNKNOWN,
        constraint=UNKNOWN,
        comment=None if asked is None else f"power={asked}",
        num_nodes=UNKNOWN,
        gpus=len(gpus),
        node=_text(record["node"]) or "",
    )
    models = dict.fromkeys(str(gpu["model"]) for gpu in gpus if gpu["model"] is not None)
    return [DescribedJob(str(job.key), job, model, at=float(record["started_at"])) for model in models]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
