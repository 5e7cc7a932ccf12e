"""Real jobs of real Slurm on the shards of one GPU: its limit follows who is there and what they may ask for."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.agents import gpu_status, hook_environment, limits, metric, one_node, post, start_afresh
from tests.lab import Lab, Node, NodeSpec, wait_until

NOBODY = 65534
POLICY = """\
version: 1
caps:
  - name: everyone
    cap: 500W
    requests: {min: min, max: baseline}
shared_gpus: SHARED
"""


@pytest.fixture(scope="module")
def _shards() -> Iterator[Lab]:
    with one_node(NodeSpec(gpus=1, shards=4, profile="driver")) as lab:
        yield lab


@pytest.fixture
def shards(_shards: Lab) -> Iterator[Lab]:
    """One GPU of four shards, on a driver that takes a real one's time."""
    start_afresh(_shards.node(1), POLICY.replace("SHARED", "highest"))
    yield _shards
    _shards.cancel_all()
    _shards.wait_idle()


def _begin(lab: Lab, comment: str, *more: str) -> int:
    """A job whose first process has begun: by then its cap holds."""
    job = lab.sbatch("echo begun; exec sleep 120", "--gres=shard:1", f"--comment={comment}", *more)
    wait_until(lambda: "begun" in lab.output(job), 10, "the job's script runs", note=False)
    return job


def _end(lab: Lab, job: int, *, others: int) -> None:
    lab.scancel(job)
    wait_until(lambda: len(gpu_status(lab.node(1))["holders"]) == others, 10, "the Epilog was heard", note=False)


def test_the_limit_follows_one_user_s_jobs_as_they_come_and_go(shards: Lab) -> None:
    node = shards.node(1)
    low = _begin(shards, "power=300W")
    assert limits(node) == {0: 300}
    high = _begin(shards, "power=600W")
    assert limits(node) == {0: 600}
    assert metric(node, "gpu_sharing_conflicts", gpu="0") == 1
    assert "alone you would have 300 W" in node.agent.get(f"/v1/jobs/{low}")["message"]
    silent = _begin(shards, "")
    assert limits(node) == {0: 600}
    _end(shards, high, others=2)
    wait_until(lambda: limits(node) == {0: 500}, 2, "the limit of those who are left")
    _end(shards, silent, others=1)
    wait_until(lambda: limits(node) == {0: 300}, 2, "the limit of the one who is left")
    assert metric(node, "gpu_sharing_conflicts", gpu="0") == 0
    _end(shards, low, others=0)
    wait_until(lambda: limits(node) == {0: 700}, 2, "the baseline")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can submit for another user")
@pytest.mark.parametrize("shared", ["highest", "lowest"])
def test_another_user_s_job_makes_requests_void_and_gives_them_back(shards: Lab, shared: str) -> None:
    node = shards.node(1)
    start_afresh(node, POLICY.replace("SHARED", shared))
    asked = "300W" if shared == "highest" else "600W"
    mine = _begin(shards, f"power={asked}")
    assert limits(node) == {0: float(asked[:-1])}
    other = shards.sbatch("exec sleep 120", "--gres=shard:1", "--comment=power=min", f"--uid={NOBODY}")
    wait_until(lambda: len(gpu_status(node)["holders"]) == 2, 10, "the other user's job is there", note=False)
    wait_until(lambda: limits(node) == {0: 500}, 2, "the rule's cap")
    job = node.agent.get(f"/v1/jobs/{mine}")
    assert (job["outcome"], job["gpus"][0]["alone_w"]) == ("denied", float(asked[:-1]))
    assert metric(node, "gpu_sharing_conflicts", gpu="0") == 2
    _end(shards, other, others=1)
    wait_until(lambda: limits(node) == {0: float(asked[:-1])}, 2, "what was asked for counts again")
    assert node.agent.get(f"/v1/jobs/{mine}")["outcome"] == "granted"


def test_jobs_that_start_in_one_moment_have_the_right_limit_before_the_next_tick(shards: Lab) -> None:
    """Two hooks at once on a driver that takes 10 ms to set a limit, again and again; a tick would mend it."""
    node = shards.node(1)
    start_afresh(node, POLICY.replace("SHARED", "highest"), interval="60s")
    for round_ in range(10):
        low, high = 2 * round_ + 1, 2 * round_ + 2
        _post_both(shards, "prolog", (low, "power=300W"), (high, "power=baseline"))
        assert limits(node) == {0: 700}
        _post_both(shards, "epilog", (low, ""), (high, ""))
        assert limits(node) == {0: 700}


def _post_both(lab: Lab, event: str, *jobs: tuple[int, str]) -> None:
    with ThreadPoolExecutor() as pool:
        done = [pool.submit(post, lab.node(1), event, job, "0", JOB_COMMENT=comment) for job, comment in jobs]
    assert [future.result() for future in done] == ["applied", "applied"]


def test_holders_of_mig_instances_have_one_limit(shards: Lab) -> None:
    node = shards.node(1)
    node.simulation.set_mig(0, ["3g.40gb", "3g.40gb"])
    try:
        start_afresh(node, POLICY.replace("SHARED", "lowest"))
        first, second = (instance.uuid for instance in node.simulation.gpu(0).mig)
        assert _post_mig(node, "prolog", 1, 1000, first, "power=300W")
        assert limits(node) == {0: 300}
        steps = node.agent.get("/v1/jobs/1")["gpus"][0]["steps"]
        assert "the limit is the whole GPU's" in steps[2]["text"]
        assert _post_mig(node, "prolog", 2, NOBODY, second, "power=200W")
        assert limits(node) == {0: 500}
        assert metric(node, "gpu_sharing_conflicts", gpu="0") == 2
        assert _post_mig(node, "epilog", 1, 1000, first, "")
        assert limits(node) == {0: 200}
    finally:
        node.simulation.set_mig(0, [])


def _post_mig(node: Node, event: str, job: int, uid: int, instance: str, comment: str) -> bool:
    environment = hook_environment(job, "0", uid=uid, JOB_COMMENT=comment)
    status, body = node.agent.post_event(event, environment + f"CUDA_VISIBLE_DEVICES={instance}\0".encode())
    return status == 200 and b'"applied"' in body
