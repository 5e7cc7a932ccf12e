"""What people and bills are told of a cap: what was set and read back, and else why nothing was."""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeGpus
from tests.one_node import AS_ASKED, OneNode, gpu, raw_event
from tests.property.test_hostile_requests import Asker

from wattkeeper.agent.control import Control
from wattkeeper.api.past import past_json
from wattkeeper.api.present import find_job, job_json
from wattkeeper.api.server import ANSWER_DEADLINE_S, Doors, Server
from wattkeeper.cli.output import alike, got
from wattkeeper.config.policy import parse_policies
from wattkeeper.core.policy import Policy
from wattkeeper.exporters.prometheus import Exporter
from wattkeeper.ledger.records import to_values
from wattkeeper.model import GpuUuid
from wattkeeper.slurm.hook_event import EventKind
from wattkeeper.snapshot import AdminHold

A = GpuUuid("GPU-0")
ASKS = {"SLURM_JOB_COMMENT": "power=240W"}
GRANTED = "you asked 240W; rule 'everyone' grants it"
OBSERVING, _ = parse_policies(
    [
        (
            "p.yaml",
            "version: 1\ncaps:\n  - {name: everyone, mode: observe, cap: baseline, requests: {min: min, max: max}}\n",
        )
    ]
)


def node_of(policy: Policy = AS_ASKED) -> OneNode:
    """A node with one free GPU at its baseline of 700 W."""
    node = OneNode(gpu(0), policy=policy)
    node.show(A, requested_mw=700_000, enforced_mw=700_000)
    node.tick()
    return node


def told(node: OneNode, job_id: int = 1) -> dict[str, Any]:
    """What the agent answers about a job."""
    snapshot = node.snapshot()
    job = find_job(snapshot, job_id, 0)
    assert job is not None
    return job_json(job, snapshot)


def begin(node: OneNode) -> dict[str, Any]:
    """A job that asks for 240 W has begun, and what is told right after its Prolog."""
    node.prolog(1, "0", **ASKS)
    return told(node)


def end(node: OneNode) -> Mapping[str, Any]:
    """The job has ended: its record."""
    node.epilog(1)
    (record,) = node.store.unrecorded()
    return to_values(record)


def hold(node: OneNode) -> None:
    node.state.gpus[A].hold = AdminHold("burn-in", 0.0, None)


def observe(node: OneNode) -> None:
    node.state.settings = replace(node.state.settings, mode="observe")


def refuse(node: OneNode) -> None:
    node.gpus.gpus[A].refuses = True


def got_of(job: Mapping[str, Any]) -> str:
    (group,) = alike(job["gpus"])
    return got(group)


def test_a_cap_that_was_set_is_told_right_after_the_prolog_and_recorded() -> None:
    node = node_of()
    job = begin(node)
    assert job["message"] == f"wattkeeper: GPU 0 capped at 240 W ({GRANTED})"
    assert got_of(job) == "240 W"
    assert end(node)["gpus"][0]["cap_w"] == 240.0


@pytest.mark.parametrize(
    ("trouble", "line", "words"),
    [
        (
            observe,
            f"would be capped at 240 W ({GRANTED}; only observed, not written)",
            "not capped: it would be 240 W (observed only: nothing is written)",
        ),
        (
            hold,
            f"not capped at 240 W: an administrator holds it ({GRANTED})",
            "not capped at 240 W: an administrator holds it",
        ),
        (
            refuse,
            f"not capped at 240 W: GPU-0: cannot set its limit to 240000 mW; run the agent as root ({GRANTED})",
            "not capped at 240 W: GPU-0: cannot set its limit to 240000 mW; run the agent as root",
        ),
    ],
)
def test_a_cap_that_was_not_set_is_no_cap(trouble: Any, line: str, words: str) -> None:
    node = node_of()
    trouble(node)
    job = begin(node)
    assert job["message"] == f"wattkeeper: GPU 0 {line}"
    assert got_of(job) == words
    node.tick()
    assert told(node)["gpus"] == job["gpus"]
    assert end(node)["gpus"][0]["cap_w"] is None
    assert got_of(told(node)) == words  # for as long as the agent has it in mind
    (record,) = node.store.unrecorded()
    assert got_of(past_json(record)) == "not capped"


def test_a_rule_that_observes_caps_nothing_either_though_the_limit_is_what_it_would_be() -> None:
    node = node_of(OBSERVING)
    node.show(A, requested_mw=240_000, enforced_mw=240_000)
    assert "would be capped at 240 W" in begin(node)["message"]
    node.tick()
    assert end(node)["gpus"][0]["cap_w"] is None


def test_a_cap_that_only_a_later_tick_could_set_is_told_and_recorded() -> None:
    node = node_of()
    hold(node)
    begin(node)
    node.state.gpus[A].hold = None
    node.tick()
    assert told(node)["message"] == f"wattkeeper: GPU 0 capped at 240 W ({GRANTED})"
    assert end(node)["gpus"][0]["cap_w"] == 240.0


class SlowSetter(FakeGpus):
    """GPUs whose driver takes longer to set a limit than a Prolog waits."""

    async def set_limit(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        await asyncio.sleep(ANSWER_DEADLINE_S[EventKind.PROLOG] + 1)
        return await super().set_limit(uuid, limit_mw, deadline_s)


def test_a_prolog_that_did_not_wait_for_the_driver_is_followed_by_a_line_that_says_so() -> None:
    node = OneNode(gpus=SlowSetter(gpu(0)), policy=AS_ASKED)
    node.tick()
    published = [node.snapshot()]
    doors = Doors(
        snapshot=lambda: published[-1],
        metrics=lambda _: (b"", "text/plain"),
        event=node._events.handle,
        control=Control(node.parts),
        changed=lambda: published.append(node.snapshot()),
        event_users=lambda: frozenset({os.geteuid()}),
        strict=lambda: False,
    )

    async def start_a_job(folder: Path) -> str:
        server = Server(doors)
        await server.open_sockets(folder, None)
        asker = Asker(folder / "events.sock")
        event = raw_event(1, {"SLURM_JOB_UID": str(os.geteuid()), "SLURM_JOB_GPUS": "0", **ASKS})
        try:
            await asyncio.to_thread(asker.ask, "POST", "/v1/events/prolog", event)
            return (await asyncio.to_thread(asker.ask, "GET", "/v1/jobs/1/message"))[1]
        finally:
            await server.close()

    with tempfile.TemporaryDirectory(prefix="wk") as folder:
        line = asyncio.run(start_a_job(Path(folder)))
    assert line == f"wattkeeper: GPU 0 not capped at 240 W: not set yet ({GRANTED})\n"


def test_a_cap_that_could_not_follow_a_new_policy_is_the_one_that_was_set_last() -> None:
    node = node_of()
    begin(node)
    node.gpus.gpus[A].refuses = True
    node.state.policy, _ = parse_policies([("p.yaml", "version: 1\ncaps:\n  - {name: new, cap: 300W}\n")])
    node.tick()
    assert got_of(told(node)).startswith("not capped at 300 W (last set to 240 W): GPU-0: cannot set its limit")
    assert end(node)["gpus"][0]["cap_w"] == 240.0


def test_a_cap_is_recorded_where_an_agent_between_knew_nothing_of_it() -> None:
    """An agent that is started anew takes in the Epilog before it has looked at the GPU."""
    node = node_of()
    begin(node)
    node.tick()
    node.go_on(5)
    node.start()
    node.drain_at_once([(EventKind.EPILOG, 1, {})])
    (record,) = node.store.unrecorded()
    assert to_values(record)["gpus"][0]["cap_w"] == 240.0


def test_an_out_of_band_limit_below_the_cap_leaves_the_cap_what_it_was_set_to() -> None:
    node = node_of()
    begin(node)
    node.show(A, enforced_mw=200_000)
    node.tick()
    assert end(node)["gpus"][0]["cap_w"] == 240.0


def test_a_job_on_a_held_gpu_does_not_inherit_the_cap_of_the_one_before() -> None:
    node = node_of()
    begin(node)
    hold(node)
    node.epilog(1)
    node.prolog(2, "0", **ASKS)
    assert told(node, 2)["gpus"][0]["cap_w"] is None


def test_the_metric_is_what_policy_chose_set_or_not() -> None:
    node = node_of()
    hold(node)
    begin(node)
    page, _ = Exporter(node.snapshot, None, node.clock.mono).render("test")
    assert b'wattkeeper_job_gpu_power_cap_watts{slurm_job_id="1",gpu="0"} 240.0' in page or (
        b'wattkeeper_job_gpu_power_cap_watts{gpu="0",slurm_job_id="1"} 240.0' in page
    )
