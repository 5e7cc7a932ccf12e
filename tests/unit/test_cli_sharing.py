"""What people see of a GPU that several jobs hold: the agent's own picture, through its API and the commands."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests import one_node
from tests.one_node import OneNode
from tests.unit.agent_stub import AgentStub, agent_stub

from wattkeeper.api import present
from wattkeeper.cli.main import cli
from wattkeeper.config.policy import parse_policies
from wattkeeper.exporters.prometheus import TEXTFILE, Exporter

POLICY, _ = parse_policies(
    [("p.yaml", "version: 1\ncaps:\n  - {name: everyone, cap: 500W, requests: {min: min, max: baseline}}\n")]
)
ALICE, BOB = 1000, 1001


@pytest.fixture
def agent() -> Iterator[AgentStub]:
    with tempfile.TemporaryDirectory(prefix="wk") as folder, agent_stub(Path(folder)) as stub:
        yield stub


def node_of(*jobs: tuple[int, int, str]) -> OneNode:
    """A node whose one GPU has jobs by shards: number, uid, comment."""
    node = OneNode(one_node.gpu(0), gres=one_node.shared(1), policy=POLICY)
    for number, uid, comment in jobs:
        more = {"SLURM_JOB_UID": str(uid), "SLURM_JOB_USER": f"user{uid}", "SLURM_JOB_COMMENT": comment}
        assert node.prolog(number, "0", **more).applied
    return node


def seen(agent: AgentStub, node: OneNode, uid: int, *arguments: str) -> str:
    """The output of a command that this user gives."""
    snapshot = node.snapshot()
    agent.answers["/v1/status"] = 200, present.status(snapshot, uid)
    for view in snapshot.jobs:
        if present.may_see(view, uid):
            agent.answers[f"/v1/jobs/{view.key.job_id}"] = 200, present.job_json(view, snapshot)
    result = CliRunner().invoke(cli, arguments, env={"WATTKEEPER_RUN_DIR": str(agent.run_dir)})
    assert result.exit_code == 0, result.output
    return result.output


def test_a_conflict_shows_in_status_and_explain(agent: AgentStub) -> None:
    node = node_of((1, ALICE, "power=300W"), (2, ALICE, "power=400W"))
    status = seen(agent, node, ALICE, "status")
    assert "CONFLICT: 1 of 2 holders would have another limit alone" in status
    assert "400 W (alone: 300 W)" in status
    explained = seen(agent, node, ALICE, "explain", "1")
    assert "sharing: 2 jobs: the highest of job 1 300 W, job 2 400 W" in explained
    assert "conflict: alone on this GPU the job would have 300 W\n  applied: 400 W\n" in explained
    assert "conflict" not in seen(agent, node, ALICE, "explain", "2")
    assert '"alone_w": 300.0' in seen(agent, node, ALICE, "explain", "1", "--json")
    assert '"sharing_conflicts": 1' in seen(agent, node, ALICE, "status", "--json")


def test_jobs_that_agree_are_no_conflict(agent: AgentStub) -> None:
    node = node_of((1, ALICE, ""), (2, BOB, ""))
    for uid in (0, ALICE, BOB):
        assert "alone" not in seen(agent, node, uid, "status")
    node = node_of((1, ALICE, "power=300W"))
    assert "alone" not in seen(agent, node, ALICE, "status")


def test_users_are_not_told_each_other_s_jobs_or_requests(agent: AgentStub) -> None:
    node = node_of((11, ALICE, "power=300W"), (22, BOB, "power=431W"))
    for command in (("status",), ("status", "--json"), ("explain", "11"), ("explain", "11", "--json")):
        output = seen(agent, node, ALICE, *command)
        assert "431" not in output
        assert '"22"' not in output
        assert "job 22" not in output
    explained = seen(agent, node, ALICE, "explain", "11")
    assert "sharing: 2 jobs of different users, so requests do not count: the highest of 500 W, 500 W" in explained
    assert "conflict: alone on this GPU the job would have 300 W" in explained


def test_profiles_reads_the_gpus_from_the_agent_s_own_answer(agent: AgentStub, tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text("version: 1\nprofiles:\n  eco: {cap: 60%}\n")
    node = node_of()
    node.tick()
    output = seen(agent, node, ALICE, "profiles", "--policy", str(policy))
    assert "NVIDIA H100: default 700 W, takes 200 W to 700 W, baseline 700 W" in output
    assert "eco            420 W" in output


def test_the_metric_counts_the_holders_who_would_have_another_limit() -> None:
    def conflicts(*jobs: tuple[int, int, str]) -> str:
        node = node_of(*jobs)
        page, _ = Exporter(node.snapshot, "id", node.clock.mono).render(TEXTFILE)
        (line,) = [line for line in page.decode().splitlines() if line.startswith("wattkeeper_gpu_sharing_conflicts{")]
        return line.split()[-1]

    assert conflicts() == "0.0"
    assert conflicts((1, ALICE, "power=300W"), (2, ALICE, "")) == "1.0"
    assert conflicts((1, ALICE, "power=300W"), (2, BOB, "power=400W"), (3, BOB, "")) == "2.0"
