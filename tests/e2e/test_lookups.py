"""Policy by fields that Slurm's hook does not tell, on the real Slurm with accounts and QOS."""

import grp
import json
import os
import pwd
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.agents import limits, metric, post, start_afresh, wait_limit
from tests.e2e.walking import Gate, by_minor, looks, wait_looks
from tests.lab import Lab, LabSpec, Node, NodeSpec, missing_programs, wait_until
from tests.lab.database import PROGRAMS
from tests.lab.slurm import Rpcs
from tests.lab.waiting import record

PATIENCE_S = 0.2
BACK_BOUND_S = 8.0
"""From slurmctld's return to a cap that is put right: the pauses between two look-ups grow, 1, 2, 4 s."""
CAUTIOUS_W = 200.0
TRIES = 3
"""Of a look-up to be there when its job's first line runs: on a loaded machine `scontrol` may take longer than that."""

GROUP = grp.getgrgid(pwd.getpwuid(os.getuid()).pw_gid).gr_name
PLAIN = """\
version: 1
caps:
  - name: plain
    when: {partition: gpu}
    cap: 400W
"""
POLICY = f"""\
version: 1
caps:
  - name: high
    when: {{qos: high}}
    cap: 600W
  - name: low
    when: {{qos: low}}
    cap: {CAUTIOUS_W:.0f}W
  - name: sweeps
    when: {{job_name: "sweep-*", partition: debug}}
    cap: 350W
  - name: everyone
    cap: 500W
"""
BY_GROUP = f"""\
version: 1
caps:
  - name: members
    when: {{group: "{GROUP}"}}
    cap: 300W
  - name: others
    cap: 250W
"""
BY_NO_GROUP = BY_GROUP.replace(GROUP, "nogroup-of-this-machine")

FORGED = "UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=1 Nice=0 Account=ml QOS=high JobState=RUNNING"

missing = missing_programs(PROGRAMS)
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed on this machine: {', '.join(missing)}")


@pytest.fixture(scope="module")
def qos_lab() -> Iterator[Lab]:
    """Two nodes with agents, and a slurmdbd with QOS; no Prometheus."""
    node = NodeSpec(settings={"interval": "0.25s"})
    with Lab(LabSpec(nodes=(node, node), dbd=True, policy=POLICY)) as lab:
        yield lab


@pytest.fixture
def lab(qos_lab: Lab) -> Iterator[Lab]:
    for node in qos_lab.nodes.values():
        start_afresh(node, POLICY)
    yield qos_lab
    qos_lab.slurmctld.signal(signal.SIGCONT)
    qos_lab.cancel_all()
    qos_lab.wait_idle()


def reload(lab: Lab, policy: str) -> None:
    for node in lab.nodes.values():
        node.write_policy(policy)
        node.agent.reload()


def rpcs(lab: Lab, before: Rpcs) -> dict[str, int]:
    """What slurmctld was asked about jobs since then, by type."""
    told = (lab.sdiag() - before).asked
    return {name: count for name, count in told.items() if "JOB_INFO" in name or "PARTITION_INFO" in name}


def wait_asked(lab: Lab, before: Rpcs, count: int) -> None:
    """Waits until slurmctld has counted so many look-ups since then, and nothing else about jobs."""
    wait_until(lambda: sum(rpcs(lab, before).values()) >= count, 2, f"{count} look-ups are counted", note=False)
    assert rpcs(lab, before) == {"REQUEST_JOB_INFO_SINGLE": count}


def first_look(lab: Lab, job: int, node: int = 1) -> float:
    """The limit of the one GPU that was not at the baseline when the job's first line ran, in watts."""
    seen = by_minor(lab.node(node), wait_looks(lab, job)[0])
    (limit,) = {limit for limit in seen.values() if limit != 700}
    return limit


def begun_in_time(lab: Lab, limit_w: float, cautious_w: float, rule: str, *options: str) -> int:
    """A job on node1 whose first line saw this rule's limit, and whose owner was told of the rule.

    Each that saw the cautious limit instead, or was put right between the owner's line and its own, is put right soon.
    """
    for _ in range(TRIES):
        job = lab.sbatch(f"{lab.nvml}; sleep 60", "--gres=gpu:1", "-w", "node1", *options)
        seen = first_look(lab, job)
        if seen == limit_w and f"rule '{rule}'" in lab.output(job).splitlines()[0]:
            return job
        assert seen in {limit_w, cautious_w}
        wait_limit(lab.node(1), 0, limit_w, BACK_BOUND_S, "put right after a look-up that a Prolog did not wait for")
        lab.scancel(job)
        lab.wait_done(job)
    raise AssertionError(f"no look-up of {TRIES} was there at its job's first line")


def explained(node: Node, job: int) -> dict[str, object]:
    gpu: dict[str, object] = json.loads(node.wattkeeper("explain", str(job), "--json").stdout)["gpus"][0]
    return gpu


@contextmanager
def hanging(lab: Lab) -> Iterator[None]:
    """slurmctld accepts connections and answers nobody."""
    lab.slurmctld.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        lab.slurmctld.signal(signal.SIGCONT)


def prolog(lab: Lab, job: int, gpus: str = "0", node: int = 1) -> float:
    """Posts a job's Prolog, as slurmd's hook does; seconds until it is answered."""
    begun = time.monotonic()
    post(lab.node(node), "prolog", job, gpus, uid=os.getuid())
    return time.monotonic() - begun


def wait_looked_up(node: Node) -> None:
    wait_until(lambda: metric(node, "slurm_lookups_total"), BACK_BOUND_S, f"{node.name} has asked", note=False)


def pending(lab: Lab, *options: str) -> int:
    """A job that slurmctld knows and does not start."""
    return lab.sbatch("sleep 60", "--hold", "--gres=gpu:1", *options)


@pytest.mark.parametrize(
    ("options", "limit_w", "rule"),
    [
        (["--qos=high"], 600, "high"),
        (["--qos=low"], 200, "low"),
        ([], 500, "everyone"),
        (["-p", "debug", "--job-name=sweep-7"], 350, "sweeps"),
        (["--job-name=sweep-7"], 500, "everyone"),
        (["-p", "debug", "--job-name=sweep-7", "--qos=high"], 600, "high"),
    ],
)
def test_qos_and_name_give_the_cap_before_the_jobs_first_line(
    lab: Lab, options: list[str], limit_w: float, rule: str
) -> None:
    job = begun_in_time(lab, limit_w, CAUTIOUS_W, rule, *options)
    assert explained(lab.node(1), job)["rule"] == rule


def test_a_job_start_costs_one_message_on_each_node_and_nothing_else_any(lab: Lab) -> None:
    gate = Gate(lab, "counted")
    before = lab.sdiag()
    job = lab.sbatch(f"srun {lab.nvml}; {gate.wait}", "-N2", "--gres=gpu:1", "--qos=high")
    wait_until(lambda: len(looks(lab.output(job))) == 2, 15, "both nodes look", note=False)
    for node in lab.nodes.values():
        wait_looked_up(node)
        assert metric(node, "slurm_lookups_total", source="scontrol", outcome="ok") == 1
        assert metric(node, "slurm_lookups_total") == 1
    wait_asked(lab, before, 2)
    during = lab.sdiag()
    time.sleep(3)
    assert rpcs(lab, during) == {}
    gate.open()
    wait_limit(lab.node(1), 0, 700, 10, "the job ends")
    assert metric(lab.node(1), "slurm_lookups_total") == 1


def test_a_policy_that_needs_nothing_costs_no_message(lab: Lab) -> None:
    start_afresh(lab.node(1), PLAIN)
    before = lab.sdiag()
    job = lab.sbatch(lab.nvml, "--gres=gpu:1", "-w", "node1", "--qos=high")
    assert first_look(lab, job) == 400
    assert rpcs(lab, before) == {}
    assert metric(lab.node(1), "slurm_lookups_total") is None
    assert metric(lab.node(1), "source_up", source="slurm") is None


@pytest.mark.parametrize(("policy", "limit_w", "rule"), [(BY_GROUP, 300, "members"), (BY_NO_GROUP, 250, "others")])
def test_a_group_gives_the_cap_and_costs_no_message(lab: Lab, policy: str, limit_w: float, rule: str) -> None:
    reload(lab, policy)
    before = lab.sdiag()
    begun_in_time(lab, limit_w, 250, rule)
    assert rpcs(lab, before) == {}
    assert metric(lab.node(1), "source_up", source="groups") == 1
    assert metric(lab.node(1), "source_up", source="slurm") is None


def test_while_slurmctld_hangs_the_cap_is_cautious_and_the_prolog_waits_no_longer_than_it_may(lab: Lab) -> None:
    node = lab.node(1)
    job, other, plain = pending(lab, "--qos=high"), pending(lab, "--qos=low"), pending(lab)
    with hanging(lab):
        late = [prolog(lab, one, str(gpu)) for gpu, one in enumerate((job, other))]
        assert (limits(node)[0], limits(node)[1]) == (CAUTIOUS_W, CAUTIOUS_W)
        assert explained(node, job)["pending"] == ["qos"]
        assert "qos: not known yet, and may change this" in node.wattkeeper("explain", str(job)).stdout
        wait_until(lambda: metric(node, "source_up", source="slurm") == 0, 4, "a silent slurmctld is told")
        assert (metric(node, "slurm_lookups_total", outcome="timeout") or 0) >= 1
        assert "no answer from Slurm" in node.wattkeeper("status").stdout
        node.write_policy(PLAIN)
        node.agent.reload()
        assert metric(node, "source_up", source="slurm") is None
        usual = prolog(lab, plain, "2")
        node.write_policy(POLICY)
        node.agent.reload()
    record("what a hanging slurmctld adds to a Prolog", max(late) - usual, PATIENCE_S)
    wait_limit(node, 0, 600, BACK_BOUND_S, "put right after slurmctld answers again")
    wait_limit(node, 2, 500, BACK_BOUND_S, "put right after slurmctld answers again")
    assert limits(node)[1] == CAUTIOUS_W
    assert (metric(node, "cap_writes_total", cause="lookup") or 0) >= 1
    wait_until(lambda: metric(node, "source_up", source="slurm") == 1, 2, "an answer is told", note=False)
    assert explained(node, job)["pending"] == []
    assert "no answer" not in node.wattkeeper("status").stdout


def saved_jobs(lab: Lab) -> bytes:
    """What slurmctld has saved of jobs. While it saves them the file is missing for a moment."""
    try:
        return (lab.files.root / "ctld" / "job_state").read_bytes()
    except FileNotFoundError:
        return b""


def test_while_slurmctld_is_dead_the_same(lab: Lab) -> None:
    node = lab.node(1)
    name = f"outlives-slurmctld-{time.time_ns()}"
    job = pending(lab, "--qos=high", f"--job-name={name}")
    wait_until(lambda: name.encode() in saved_jobs(lab), 10, "slurmctld has saved the job", note=False)
    lab.slurmctld.kill()
    try:
        late = prolog(lab, job)
        assert limits(node)[0] == CAUTIOUS_W
        wait_until(lambda: metric(node, "source_up", source="slurm") == 0, 4, "a dead slurmctld is told")
    finally:
        lab.start_slurmctld()
    record("a Prolog while slurmctld is dead", late, PATIENCE_S + 0.1)
    wait_limit(node, 0, 600, BACK_BOUND_S, "put right after slurmctld has started again")


def test_an_agent_that_starts_again_asks_only_for_what_it_does_not_know(lab: Lab) -> None:
    node = lab.node(1)
    known, unknown = pending(lab, "--qos=high"), pending(lab, "--qos=high")
    prolog(lab, known)
    wait_limit(node, 0, 600, BACK_BOUND_S, "known before slurmctld hangs")
    with hanging(lab):
        prolog(lab, unknown, "1")
        assert (limits(node)[0], limits(node)[1]) == (600, CAUTIOUS_W)
        node.agent.restart()
        assert (limits(node)[0], limits(node)[1]) == (600, CAUTIOUS_W)
    wait_limit(node, 1, 600, BACK_BOUND_S, "put right by the next agent")
    before = lab.sdiag()
    node.agent.restart()
    assert (limits(node)[0], limits(node)[1]) == (600, 600)
    assert rpcs(lab, before) == {}


def test_a_reload_asks_once_about_the_jobs_that_run_and_lowers_nothing_meanwhile(lab: Lab) -> None:
    node = lab.node(1)
    for _ in range(TRIES):
        start_afresh(node, PLAIN.replace("400W", "600W"))
        job, other = pending(lab, "--qos=high"), pending(lab, "--qos=low")
        prolog(lab, job, "0,1")
        prolog(lab, other, "2")
        before, writes = lab.sdiag(), metric(node, "cap_writes_total") or 0
        node.write_policy(POLICY)
        node.agent.reload()
        for each, rule in ((job, "high"), (other, "low")):
            wait_until(lambda each=each: explained(node, each)["pending"] == [], BACK_BOUND_S, "known", note=False)  # type: ignore[misc]
            assert explained(node, each)["rule"] == rule
        after = {0: 600, 1: 600, 2: CAUTIOUS_W, 3: 700}
        wait_until(lambda after=after: limits(node) == after, BACK_BOUND_S, "limits after a reload")  # type: ignore[misc]
        wait_asked(lab, before, 2)
        more = (metric(node, "cap_writes_total") or 0) - writes
        if more == 1:  # else a look-up took longer than a reload waits
            break
    assert more == 1
    node.agent.reload()
    assert rpcs(lab, before) == {"REQUEST_JOB_INFO_SINGLE": 2}


@pytest.mark.parametrize(
    "name",
    [
        "x QOS=high JobState=RUNNING",
        f"x {FORGED}",
        f"x\nJobId=1 JobName=y {FORGED} Reason=None",
        "x\n1|0|ml|high|y\n",
    ],
)
def test_a_jobs_name_forges_no_qos(lab: Lab, name: str) -> None:
    node = lab.node(1)
    words = ("--gres=gpu:1", "-w", "node1", "--qos=low", f"--job-name={name}", f"--comment={name}")
    job = lab.sbatch(f"{lab.nvml}; sleep 60", *words)
    assert first_look(lab, job) == CAUTIOUS_W
    wait_looked_up(node)
    wait_until(lambda: explained(node, job)["pending"] == [], BACK_BOUND_S, "all is known", note=False)
    assert limits(node)[0] == CAUTIOUS_W
    assert explained(node, job)["rule"] == "low"
    assert (metric(node, "slurm_lookups_total") or 0) == 1
    assert "\n1|0" not in node.wattkeeper("explain", str(job)).stdout


def test_look_ups_that_are_off_leave_the_cautious_cap_and_ask_nothing(lab: Lab) -> None:
    node = lab.node(1)
    job = pending(lab, "--qos=high")
    before = lab.sdiag()
    slurm = node.settings["slurm"]
    node.write_settings({**node.settings, "slurm": {**slurm, "lookup": "off"}})
    node.agent.reload()
    prolog(lab, job)
    assert limits(node)[0] == CAUTIOUS_W
    assert rpcs(lab, before) == {}
    node.write_settings({**node.settings, "slurm": slurm})
    node.agent.reload()
    wait_limit(node, 0, 600, BACK_BOUND_S, "put right when look-ups are on again")
