"""What tests of a running agent share: hook events posted by hand, limits as they truly are, metrics by name."""

import json
import shutil
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.lab import Lab, LabSpec, Node, NodeSpec, wait_until
from tests.lab.sockets import request
from wattkeeper.units import Milliwatts

TICK_S = 0.25
"""The interval of the agents that `one_node` starts."""

HOURS_MJ = 10_000_000_000
"""What a GPU draws in some hours: a counter that stands there is not soon passed by one that begins anew."""

POLICY = """\
version: 1
caps:
  - name: capped
    when: {partition: debug}
    cap: 300W
  - name: everyone
    cap: baseline
    requests: {min: min, max: baseline}
"""


def hook_environment(job: int, gpus: str | None = "0", *, run: int = 0, uid: int = 1000, **more: str) -> bytes:
    """What slurmd gives a hook for a job; `more` are further variables, without their SLURM_."""
    variables = {
        "SLURM_CLUSTER_NAME": "lab",
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_UID": str(uid),
        "SLURM_JOB_USER": f"user{uid}",
        "SLURM_JOB_PARTITION": "gpu",
        "SLURM_JOB_RESTART_COUNT": str(run),
        "SLURMD_NODENAME": "node1",
        **({} if gpus is None else {"SLURM_JOB_GPUS": gpus}),
        **{f"SLURM_{name}": value for name, value in more.items()},
    }
    return b"".join(f"{name}={value}\0".encode() for name, value in variables.items())


def post(node: Node, event: str, job: int, gpus: str | None = "0", **more: Any) -> str:
    """Posts an event as the shipped hooks do; what came of it, which may take longer than a hook is kept waiting."""
    before = outcomes(node, event)
    status, body = node.agent.post_event(event, hook_environment(job, gpus, **more))
    assert status == 200, body
    answer = json.loads(body)
    if "not confirmed yet" not in answer["text"]:
        return str(answer["outcome"])
    news = wait_until(lambda: outcomes(node, event) - before, 2, f"the {event} of job {job} is done", note=False)
    (outcome,) = news
    return "unsure" if outcome == "failed" else outcome


def outcomes(node: Node, event: str) -> Counter[str]:
    """How many events of that kind came to what, since the agent began."""
    _, page = request(node.agent.read_socket, "/metrics")
    families = text_string_to_metric_families(page.decode())
    samples = (sample for family in families for sample in family.samples)
    found = [sample for sample in samples if sample.name == "wattkeeper_hook_events_total"]
    return Counter({s.labels["outcome"]: int(s.value) for s in found if s.labels["event"] == event})


def limits(node: Node) -> dict[int, float]:
    """The requested limit of every GPU in watts, from the simulated devices themselves."""
    return {gpu.minor: gpu.requested_mw / 1000 for gpu in node.simulation.show().gpus}


def set_behind(node: Node, minor: int, limit_w: int) -> None:
    """Another program sets a limit."""
    node.simulation.set_limit(minor, Milliwatts(limit_w * 1000))


def metrics_page(node: Node) -> str:
    with urllib.request.urlopen(node.agent.metrics_url, timeout=5) as answer:  # noqa: S310 - our own address
        return str(answer.read().decode())


def metric(node: Node, name: str, /, **labels: str) -> float | None:
    """The sum of a metric's samples with those labels; None where there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(metrics_page(node))
        for sample in family.samples
        if sample.name == f"wattkeeper_{name}" and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None


def gpu_status(node: Node, minor: int = 0) -> dict[str, Any]:
    """One GPU as the agent shows it."""
    gpus: list[dict[str, Any]] = node.agent.get("/v1/status")["gpus"]
    return gpus[minor]


def let_ticks_pass(node: Node, count: int = 2) -> None:
    """Returns when the agent has looked at its GPUs so many times more, the first look not counted."""
    seen = {node.agent.get("/v1/status")["at"]}

    def enough() -> bool:
        seen.add(node.agent.get("/v1/status")["at"])
        return len(seen) > count + 1

    wait_until(enough, (count + 2) * TICK_S, f"{count} ticks", note=False)


def wait_limit(node: Node, minor: int, limit_w: float, bound_s: float, what: str) -> None:
    wait_until(lambda: limits(node)[minor] == limit_w, bound_s, what)


@contextmanager
def one_node(spec: NodeSpec | None = None, policy: str = POLICY) -> Iterator[Lab]:
    """A lab of one node with an agent that looks at its GPUs four times a second."""
    spec = spec or NodeSpec()
    node = replace(spec, settings={"interval": f"{TICK_S}s", **spec.settings})
    with Lab(LabSpec(nodes=(node,), policy=policy)) as lab:
        yield lab


def afresh(lab: Lab) -> Iterator[Lab]:
    """For fixtures: a lab of one node whose agent is as on the first day, free of jobs when the test has ended."""
    start_afresh(lab.node(1))
    yield lab
    lab.cancel_all()
    lab.wait_idle()


_plain: dict[str, dict[str, Any]] = {}


def plain_settings(node: Node) -> dict[str, Any]:
    """The settings that the lab gave the node, whatever was written since."""
    return _plain.setdefault(str(node.files.root), node.settings)


def start_afresh(node: Node, policy: str = POLICY, **settings: Any) -> None:
    """The agent and the GPUs as on the first day, with these settings laid over the node's."""
    node.agent.kill()
    node.agent.actuator.close()  # nothing that the agent still asked for comes late
    for folder in (node.files.run_dir, node.files.state_dir, node.files.policies):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    node.simulation.forget_plans()
    node.simulation.reboot()
    node.simulation.clear_fault("all")
    node.simulation.set_persistence("all", True)
    for gpu in node.simulation.show().gpus:
        limit_w = node.spec.initial_limit_w or gpu.default_mw // 1000
        set_behind(node, gpu.minor, limit_w)
    node.write_policy(policy)
    node.write_settings({**plain_settings(node), **settings})
    node.agent.start()
