"""Users' text, in by a hook's environment: no outlet shows a character that hides, or more than a person reads."""

import asyncio
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.one_node import OneNode, gpu
from tests.property.hostile import (
    FIELDS,
    PIECES,
    environments,
    harmless,
    harmless_json,
    harmless_lines,
    hostile,
    huge,
    unseen,
)
from tests.unit.agent_stub import AgentStub, agent_stub

from wattkeeper.agent import recover
from wattkeeper.agent.events import Answer
from wattkeeper.api import present
from wattkeeper.api.line import usage_line
from wattkeeper.api.past import past_json
from wattkeeper.cli.client import AgentClient, AgentRefusedError
from wattkeeper.cli.main import cli
from wattkeeper.config.policy import parse_policies
from wattkeeper.exporters.prometheus import Exporter
from wattkeeper.ledger.records import Records
from wattkeeper.ledger.report import find_runs
from wattkeeper.ledger.store import SqliteStore
from wattkeeper.slurm.hook_event import EventError, EventKind, parse_event

POLICY = """
version: 1
profiles: {eco: {cap: 60%}}
caps:
  - {name: ml, when: {account: "ml-*"}, cap: 80%}
  - {name: everyone, cap: baseline, requests: {min: min, max: baseline}}
"""

WORST = dict.fromkeys(FIELDS, 'power=\x1b[2J\n\u202e\ud800"\\{{' + "x" * 5_000)


class Heard(logging.Handler):
    """What the journal would hold, each line as it would stand there."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def heard() -> Iterator[list[str]]:
    handler, logger = Heard(), logging.getLogger("wattkeeper")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def node_with(environment: dict[str, str]) -> tuple[OneNode, Answer]:
    """A node on which job 7 of that environment began on both GPUs, and used some energy."""
    node = OneNode(gpu(0), gpu(1))
    node.state.policy = parse_policies([("policy.yaml", POLICY)])[0]
    answer = node.prolog(7, "0,1", **environment)
    node.go_on(60, GPU_0=5_000_000, GPU_1=1_000)
    node.tick()
    return node, answer


@dataclass(frozen=True)
class Running:
    """What the environments of processes say, by job."""

    jobs: Mapping[int, Mapping[str, str]]

    async def running(self) -> Mapping[int, Mapping[str, str]]:
        return self.jobs


def look(node: OneNode, jobs: Mapping[int, Mapping[str, str]]) -> None:
    """What an agent that comes back does with what runs here."""
    asyncio.run(recover.look(node.state, node._events, Running(jobs), node.clock))


def key_of(environment: dict[str, str]) -> dict[str, str]:
    """What an Epilog must repeat to mean the same run."""
    return {name: environment[name] for name in ("SLURM_CLUSTER_NAME", "SLURM_JOB_SLUID") if name in environment}


@given(environments)
@example(WORST)
def test_the_journal(environment: dict[str, str]) -> None:
    with heard() as lines:
        node, begun = node_with(environment)
        ended = node.epilog(7, **key_of(environment))
        harmless_lines(begun.text + "\n" + ended.text)
        restarted = node.prolog(8, "0,1", **environment)
        harmless(restarted.text)
    assert any("job=7" in line for line in lines)
    for line in lines:
        harmless(line, 1_000)
    harmless(node.state.node)  # systemd's status line names it


@given(environments)
@example(WORST)
def test_the_answers_of_the_socket_and_the_users_lines(environment: dict[str, str]) -> None:
    node, answer = node_with(environment)
    assert answer.applied
    snapshot = node.snapshot()
    for uid in (0, 1000, 1001):
        harmless_json(present.status(snapshot, uid))
    (job,) = snapshot.jobs
    harmless_json(present.job_json(job, snapshot))
    harmless(job.message, 1_000)
    harmless(usage_line(present.job_json(job, snapshot), 2))


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentStub]:
    with tempfile.TemporaryDirectory(prefix="wk") as folder, agent_stub(Path(folder)) as stub:
        yield stub


def printed(agent: AgentStub, *words: str) -> str:
    result = CliRunner().invoke(cli, words, env={"WATTKEEPER_RUN_DIR": str(agent.run_dir)})
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.output


@given(environments)
@example(WORST)
def test_the_commands_that_look_at_the_agent(agent: AgentStub, environment: dict[str, str]) -> None:
    node, _ = node_with(environment)
    snapshot = node.snapshot()
    (job,) = snapshot.jobs
    answer = present.job_json(job, snapshot)
    agent.answers = {
        "/v1/status": (200, present.status(snapshot, 0)),
        "/v1/jobs/7": (200, answer),
        "/v1/jobs/7/line": (200, usage_line(answer, 2) + "\n"),
    }
    for words in (["status"], ["job", "7"], ["job", "7", "--line"], ["explain", "7"]):
        harmless_lines(printed(agent, *words), 3_000)
    for words in (["status"], ["job", "7"], ["explain", "7"]):
        harmless_lines(printed(agent, *words, "--json"), 3_000)


@settings(max_examples=30)
@given(hostile, hostile)
def test_what_an_agent_that_lies_says_is_not_printed_raw(agent: AgentStub, text: str, name: str) -> None:
    """A command may be root's, an agent is not."""
    node, _ = node_with({})
    snapshot = node.snapshot()
    status = present.status(snapshot, 0)
    status["alarms"], status["node"] = [text], name
    status["gpus"][0]["error"], status["gpus"][0]["holders"] = text, [name]
    status["jobs"][0]["asked"] = status["jobs"][0]["job_id"] = status["mode"] = status["gpus"][1]["gpu"] = text
    job = present.job_json(snapshot.jobs[0], snapshot)
    job["job_id"], job["gpus"][0]["steps"][0]["kind"] = text, name
    agent.answers = {"/v1/status": (200, status), "/v1/jobs/7": (200, job), "/v1/jobs/8": (403, {"error": text})}
    for words in (["status"], ["job", "7"], ["explain", "7"]):
        harmless_lines(printed(agent, *words), 3_000)
        written = printed(agent, *words, "--json")
        harmless_lines(written, 3_000)
        assert json.loads(written) == agent.answers["/v1/status" if words == ["status"] else "/v1/jobs/7"][1]
    with pytest.raises(AgentRefusedError) as refused:
        AgentClient(agent.run_dir).get("/v1/jobs/8")
    harmless(str(refused.value))


@given(st.sampled_from(["user", "account", "partition", "reservation", "constraint", "node"]), hostile | huge, hostile)
def test_the_explanation_of_a_job_that_might_come(
    tmp_path_factory: pytest.TempPathFactory, field: str, text: str, comment: str
) -> None:
    policy = tmp_path_factory.getbasetemp() / "policy.yaml"
    policy.write_text(POLICY)
    words = [
        "explain",
        "--policy",
        str(policy),
        "--gpu-model",
        "H100",
        f"--{field}",
        text,
        "--comment",
        f"power={comment}",
    ]
    for more in ([], ["--json"]):
        result = CliRunner().invoke(cli, [*words, *more])
        assert result.exit_code == 0, result.output
        harmless_lines(result.output, 1_000)


@given(environments, st.sampled_from(["full", "id", "none"]))
@example(WORST, "full")
def test_the_metrics_stay_a_page(environment: dict[str, str], labels: str) -> None:
    node, _ = node_with(environment)
    node.epilog(7, **key_of(environment))
    node.prolog(8, "1", SLURM_JOB_ACCOUNT="ml-vision")
    exporter = Exporter(node.snapshot, labels, node.clock.mono)  # type: ignore[arg-type]
    page = exporter.render("prometheus")[0].decode()
    series = set()
    for family in text_string_to_metric_families(page):
        assert family.name.startswith("wattkeeper_")
        assert "forged" not in family.name
        for sample in family.samples:
            for value in sample.labels.values():
                harmless(value, 200)
            same = sample.name, tuple(sorted(sample.labels.items()))
            assert same not in series, "two series of one name and labels: Prometheus drops the page"
            series.add(same)
    assert unseen(page.replace("\n", "")) == []


@settings(max_examples=40)
@given(environments)
@example(WORST)
def test_the_records_and_what_is_left_in_the_ledger(environment: dict[str, str]) -> None:
    node, _ = node_with(environment)
    node.epilog(7, **key_of(environment))
    with tempfile.TemporaryDirectory(prefix="wk-hostile-") as name:
        folder = Path(name)
        with closing(SqliteStore(folder / "state.db")) as store:
            for change in node.changes:
                store.commit(change)
            found = store.unrecorded()
            told: list[str] = []
            Records(folder / "records", told.append).write(found)
            store.note_recorded([record.note.facts.key for record in found])
        (file,) = (folder / "records").iterdir()
        assert file.read_text() == "".join(line + "\n" for line in told)
        (line,) = told
        harmless(line, 8_000)
        harmless_json(json.loads(line))
        (past,) = find_runs(folder / "state.db", 7, 1000)
        harmless_json(past_json(past))
        harmless(usage_line(past_json(past), 2))
        for words in (["--by", "user,account"], ["--by", "partition", "--json"], ["--by", "account", "--csv"]):
            result = CliRunner().invoke(cli, ["report", "--state-dir", name, "--since", "2020-01-01", *words])
            assert result.exit_code == 0, result.output
            harmless_lines(result.output, 1_000)


@given(hostile | huge, st.none() | hostile | huge)
@example("0-9999," * 100_000, None)
@example("GPU-" + "x" * 100_000, "GPU-\x1b[2J")
@example("0", "GPU-\u202e," * 10_000)
def test_lists_of_gpus_that_are_none(gpus: str, visible: str | None) -> None:
    """Of a Prolog that is Slurm's; and of a process that runs here, whose environment is its user's."""
    environment = {"SLURM_JOB_GPUS": gpus.replace("\0", ""), "CUDA_VISIBLE_DEVICES": (visible or "").replace("\0", "")}
    with heard() as lines:
        node = OneNode(gpu(0), gpu(1))
        harmless(node.prolog(7, "", **environment).text)
        harmless_json(present.status(node.snapshot(), 0))

        look(node, {9: {"SLURM_JOB_ID": "9", "SLURM_JOB_UID": "1000", **environment}})
        harmless_json(present.status(node.snapshot(), 0))
    for line in lines:
        harmless(line, 1_000)


@given(st.binary(max_size=300), st.sampled_from(PIECES))
@example(b"SLURM_JOB_ID=1\0SLURM_JOB_UID=\xff\0", "")
@example(b"A=" + b"x" * (1 << 20), "")
def test_why_an_environment_is_none(junk: bytes, piece: str) -> None:
    try:
        parse_event(EventKind.PROLOG, junk + piece.encode(errors="surrogatepass"))
    except EventError as error:
        harmless(str(error))


def test_nothing_of_a_large_environment_is_kept_whole() -> None:
    """A million letters in each of a job's fields would be in memory and in the ledger for as long as the job."""
    event = parse_event(
        EventKind.PROLOG,
        b"SLURM_JOB_ID=1\0SLURM_JOB_UID=1\0" + b"".join(f"{name}=".encode() + b"x" * 90_000 + b"\0" for name in FIELDS),
    )
    facts = event.job
    kept = (facts.user, facts.account, facts.partition, facts.reservation, facts.node, facts.key.cluster, facts.key.run)
    assert all(isinstance(text, str) and len(text) <= 256 for text in kept)
    assert all(isinstance(text, str) and len(text) <= 4096 for text in (facts.comment, facts.constraint))
