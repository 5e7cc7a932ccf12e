"""Jobs that a person describes, to try a policy on: a list in YAML, as in ``policies/examples/jobs.yaml``."""

from dataclasses import dataclass
from pathlib import Path

from wattkeeper.config.walk import Walk, join, raise_if_any
from wattkeeper.config.yaml_lines import Node, Null, Text, parse, read_text
from wattkeeper.errors import Problem
from wattkeeper.model import JobFacts, JobKey
from wattkeeper.text import printable

_TEXTS = ("user", "account", "partition", "qos", "job_name", "reservation", "constraint", "comment")
_NUMBERS = ("uid", "gpus", "num_nodes")
_KEYS = ("name", *_TEXTS, "groups", *_NUMBERS, "node", "gpu_model", "note")


@dataclass(frozen=True, slots=True)
class DescribedJob:
    """A job on GPUs of one model. ``at``: the Unix time at which it ran; None: any time."""

    name: str
    job: JobFacts
    gpu_model: str
    note: str = ""
    at: float | None = None


def load_jobs(path: Path) -> tuple[DescribedJob, ...]:
    """The jobs in a file. Raises ``ConfigError`` with every problem, or where the file cannot be read."""
    return parse_jobs(str(path), read_text(path))


def parse_jobs(file: str, text: str) -> tuple[DescribedJob, ...]:
    """The jobs that a text describes, in its order. No I/O. Raises ``ConfigError`` with every problem at once.

    A field that is left out is one that Slurm does not set for the job; it is then on one GPU of one node.
    """
    root, found = parse(file, text)
    problems: list[Problem] = list(found)
    walk = Walk(file, problems)
    if root is None:
        problems.append(Problem(file, 1, "", "the file is empty (needed: a list of jobs)"))
        nodes: tuple[Node, ...] = ()
    else:
        nodes = walk.items(root, "")
    jobs: dict[str, DescribedJob] = {}
    for at, node in enumerate(nodes, start=1):
        job = _job(walk, node, f"[#{at}]")
        if job.name in jobs:
            walk.error(node, f"[#{at}].name", f"the name '{printable(job.name, 80)}' is taken by an earlier job")
        jobs.setdefault(job.name, job)
    raise_if_any(problems)
    return tuple(jobs.values())


def _job(walk: Walk, node: Node, path: str) -> DescribedJob:
    known = {name: value for name, (_, value) in walk.table(node, path, _KEYS, ("name", "gpu_model")).items()}
    texts = {key: _text(walk, known, path, key) for key in _TEXTS}
    groups = walk.one_or_more(known["groups"], join(path, "groups")) if "groups" in known else ()
    job = JobFacts(
        key=JobKey("", 0, ""),
        uid=_number(walk, known, path, "uid", 0, 0),
        user=texts["user"],
        account=texts["account"],
        partition=texts["partition"],
        qos=texts["qos"],
        job_name=texts["job_name"],
        reservation=texts["reservation"],
        constraint=texts["constraint"],
        comment=texts["comment"],
        num_nodes=_number(walk, known, path, "num_nodes", 1, 1),
        gpus=_number(walk, known, path, "gpus", 1, 0),
        node=_text(walk, known, path, "node") or "",
        groups=frozenset(group.value for group in groups),
    )
    name, model = (_text(walk, known, path, key) or f"#{path}" for key in ("name", "gpu_model"))
    return DescribedJob(name, job, model, _text(walk, known, path, "note") or "")


def _text(walk: Walk, known: dict[str, Node], path: str, key: str) -> str | None:
    """A field's text; None where it is missing, ``null`` or was noted as wrong. A comment may be empty."""
    node = known.get(key, Null(0))
    if isinstance(node, Null) or (key == "comment" and isinstance(node, Text) and not node.value.strip()):
        return None
    return walk.text(node, join(path, key))


def _number(walk: Walk, known: dict[str, Node], path: str, key: str, default: int, least: int) -> int:
    if key not in known:
        return default
    text = walk.text(known[key], join(path, key))
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) >= least):
        walk.error(known[key], join(path, key), f"'{printable(text, 60)}' is no number", f"{least}, {least + 1}, …")
        return default
    return int(text)
