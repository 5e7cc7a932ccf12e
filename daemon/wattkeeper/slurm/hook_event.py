"""A hook's environment, as bytes that users had a hand in, as an event."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from wattkeeper.errors import WattkeeperError
from wattkeeper.model import UNKNOWN, JobFacts, JobKey
from wattkeeper.text import printable

MAX_ENVIRONMENT = 1 << 20
OPTION = "SPANK_WATTKEEPER_GPU_POWER"
"""What was given to --gpu-power, where the site has deploy/slurm/spank. Users can make it any text."""
_OPTION_LIMIT = 128  # characters: twice what a request may have, so that one cut short stays malformed
MOST_NAME = 256
"""So many characters of a name (of a user, account, partition, node …) are kept: Slurm allows fewer."""

MOST_TEXT = 4096
"""So many of a comment, or of what else a user writes: Slurm allows 1024 of a comment."""

_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)


class EventKind(StrEnum):
    """Which hook ran."""

    PROLOG = "prolog"
    EPILOG = "epilog"


class EventError(WattkeeperError):
    """The environment is not that of a Slurm hook."""


@dataclass(frozen=True, slots=True)
class HookEvent:
    """One run of a hook. ``gpus`` is SLURM_JOB_GPUS as it came: "" where the job has none or Slurm does not say."""

    kind: EventKind
    job: JobFacts
    gpus: str
    visible: str | None


def parse_environment(raw: bytes) -> dict[str, str]:
    """NUL-separated ``NAME=value``, as in /proc/self/environ. A newline in a value is part of the value; where a
    name comes twice the first counts, as it does for getenv(3). Raises EventError where it is too large."""
    if len(raw) > MAX_ENVIRONMENT:
        raise EventError(f"an environment of {len(raw)} bytes is over the limit of {MAX_ENVIRONMENT}")
    found: dict[str, str] = {}
    for entry in raw.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals:
            found.setdefault(name.decode(errors="replace"), value.decode(errors="replace"))
    return found


def parse_event(kind: EventKind, raw: bytes) -> HookEvent:
    """The event that a hook's environment tells of. Raises EventError that names what is wrong."""
    environment = parse_environment(raw)
    return HookEvent(
        kind,
        facts_of(environment),
        gpus=environment.get("SLURM_JOB_GPUS", ""),
        visible=environment.get("CUDA_VISIBLE_DEVICES"),
    )


def facts_of(environment: Mapping[str, str]) -> JobFacts:
    """The facts of a job in a hook's environment (variables: docs/decisions). Raises EventError.

    What the release's hooks never carry (QOS before 26.05, job name) stays UNKNOWN, and so does QOS in a hook that
    lacks it, for nothing there tells the release; what they would carry and this one lacks (ACCOUNT without
    accounting) is absent.
    """
    job_id = _number(environment, "SLURM_JOB_ID")
    if job_id is None:
        raise EventError("the environment has no SLURM_JOB_ID: this is not a Slurm hook")
    uid = _number(environment, "SLURM_JOB_UID")
    if uid is None:
        raise EventError(f"job {job_id}: the environment has no SLURM_JOB_UID")
    sluid = environment.get("SLURM_JOB_SLUID") or environment.get("SLURM_SLUID")
    run = printable(sluid, 32) if sluid else f"r{_number(environment, 'SLURM_JOB_RESTART_COUNT') or 0}"
    return JobFacts(
        key=JobKey(printable(environment.get("SLURM_CLUSTER_NAME", ""), MOST_NAME), job_id, run),
        uid=uid,
        user=_text(environment, "SLURM_JOB_USER"),
        account=_text(environment, "SLURM_JOB_ACCOUNT"),
        partition=_text(environment, "SLURM_JOB_PARTITION"),
        qos=_text(environment, "SLURM_JOB_QOS") or UNKNOWN,
        reservation=_text(environment, "SLURM_JOB_RESERVATION"),
        constraint=_text(environment, "SLURM_JOB_CONSTRAINTS", MOST_TEXT),
        comment=_comment(environment),
        num_nodes=_number(environment, "SLURM_JOB_NUM_NODES"),
        node=printable(environment.get("SLURMD_NODENAME", ""), MOST_NAME),
        het_job_id=_number(environment, "SLURM_HET_JOB_ID"),
    )


def _comment(environment: Mapping[str, str]) -> str | None:
    """The job's comment; with --gpu-power, which wins over it, a comment that asks for just that."""
    option = environment.get(OPTION)
    if option is None:
        return _text(environment, "SLURM_JOB_COMMENT", MOST_TEXT)
    return json.dumps({"power": option[:_OPTION_LIMIT]})


def _text(environment: Mapping[str, str], name: str, most: int = MOST_NAME) -> str | None:
    """A field as it came, which policy compares with; what is too long to be true ends in ``…``, as no name does."""
    text = environment.get(name)
    return text if text is None or len(text) <= most else text[: most - 1] + "…"


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else None
