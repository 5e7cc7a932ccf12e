"""Edges of schedules by the real clock: windows that open and close at the next full minute, and ramps beside it."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.e2e.agents import gpu_status, limits, metric
from tests.e2e.walking import Gate, report
from tests.lab import Lab, LabSpec, Node, NodeSpec, wait_until
from tests.lab.waiting import record
from wattkeeper.core.ramp import lead_and_lag

ZONE = "Europe/Zurich"
ON_AGAIN_S = 8
"""After its minute, by a ramp: window and ramp are chosen so, because windows are whole minutes."""
OFF_LATE_S = 5
LATE_BOUND_S = 1.0
INTERVAL_S = 20
"""Of the agents' ticks: an edge that waited for one would be late."""

RULES = """\
version: 1
caps:
  - name: everyone
    cap: 600W
    requests: {min: min, max: 600W}
"""
FREE, PEAK = [600.0, 600.0, 700.0, 700.0], [420.0, 420.0, 420.0, 420.0]


@dataclass(frozen=True)
class Seen:
    """From ``at`` on (Unix time) a node's limits were these, in watts by minor number."""

    at: float
    limits_w: list[float]


@pytest.fixture(scope="module")
def time_lab() -> Iterator[Lab]:
    """Two nodes whose agents look at their GPUs every 20 s."""
    node = NodeSpec(settings={"interval": f"{INTERVAL_S}s", "time_zone": ZONE})
    with Lab(LabSpec(nodes=(node, node), policy=RULES)) as lab:
        yield lab


def ceiling(name: str, opens_at: int, cap_w: int, ramp_s: int = 0, partition: str | None = None) -> str:
    """One that holds for the minute that begins at that Unix time."""
    selector = f"partition: {partition}, " if partition else ""
    minute = datetime.fromtimestamp(opens_at, ZoneInfo(ZONE)).minute
    return (
        f"  - name: {name}\n    when: {{{selector}schedule: {{cron: '{minute} * * * *', for: 1m}}}}\n"
        f"    cap: {cap_w}W\n    ramp: {ramp_s}s\n"
    )


def ramp_of(node: str, *, lead_s: int | None = None, lag_s: int | None = None) -> int:
    """A ramp in which that node takes its ceiling on, or leaves it, so many seconds away from its time."""
    wanted = range(3600)
    return next(s for s in wanted if lead_and_lag(s, node)[0] == lead_s or lead_and_lag(s, node)[1] == lag_s)


def capped(node: Node) -> list[float]:
    return list(limits(node).values())


def watch(nodes: Sequence[Node], until_at: float) -> dict[str, list[Seen]]:
    """Every change of a limit on these nodes, as the devices have it."""
    seen: dict[str, list[Seen]] = {node.name: [] for node in nodes}
    while time.time() < until_at:
        for node in nodes:
            before, now = seen[node.name], capped(node)
            if not before or before[-1].limits_w != now:
                before.append(Seen(time.time(), now))
        time.sleep(0.01)
    return seen


def check_edge(what: str, seen: Sequence[Seen], edge_at: float, before: list[float], after: list[float]) -> None:
    """At the edge all limits moved, not before it, and how late."""
    begun = next((i for i, s in enumerate(seen) if s.at > edge_at - 2 and s.limits_w != before), None)
    assert begun, f"{what}: nothing moved from {before} in {seen}"
    assert seen[begun - 1].limits_w == before
    assert seen[begun].at >= edge_at, f"{what}: {edge_at - seen[begun].at:.3f} s too early"
    done = next((s for s in seen[begun:] if s.limits_w == after), None)
    assert done, f"{what}: {after} was not reached in {seen}"
    record(what, done.at - edge_at, LATE_BOUND_S)


def explained(node: Node, job: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.wattkeeper("explain", str(job), "--json").stdout)["gpus"][0]
    return found


def words(at: float) -> str:
    """A full minute as one reads it in the minute before: with its day where that minute is of the day before."""
    last, moment = (datetime.fromtimestamp(one, ZoneInfo(ZONE)) for one in (at - 1, at))
    return moment.strftime("%H:%M %Z" if last.date() == moment.date() else "%Y-%m-%d %H:%M %Z")


def check_told(node: Node, job: int, edge_at: int) -> None:
    """Before the edge: who has a job under the ceiling, or looks at the node, reads until when it holds."""
    assert gpu_status(node, 3)["next_change"] == edge_at
    told = explained(node, job)
    assert (told["next_change"], told["until"]) == (edge_at, words(edge_at))
    *_, until, applied = node.wattkeeper("explain", str(job)).stdout.splitlines()
    assert until == f"  stands until {words(edge_at)} at least, as far as time goes"
    assert applied == "  applied: 420 W"
    assert report(node, job)["message"].endswith(
        f"ceiling 'now': at most 420 W: binds, until {words(edge_at)} at least)"
    )
    assert f"until {words(edge_at)} at least" in node.wattkeeper("status").stdout


def test_an_edge_moves_running_jobs_and_idle_gpus_and_moves_them_back(time_lab: Lab) -> None:
    lab, nodes = time_lab, list(time_lab.nodes.values())
    gate = Gate(lab, "peak")
    jobs = {
        (node.name, partition): lab.sbatch(gate.wait, "--gres=gpu:1", "-w", node.name, "-p", partition)
        for node in nodes
        for partition in ("gpu", "debug")
    }
    wait_until(lambda: [capped(node) for node in nodes] == [FREE, FREE], 15, "jobs run", note=False)
    first, second = nodes
    debug = report(second, jobs["node2", "debug"])["gpus"][0]["gpu"]
    edge = int((time.time() + 30) // 60 + 1) * 60
    time.sleep(max(0.0, edge - 59 - time.time()))  # so that what closes at the edge is open
    again = ceiling("again", edge + 60, 420, ramp_of("node1", lead_s=60 - ON_AGAIN_S))
    first.write_policy(f"{RULES}ceilings:\n{ceiling('now', edge - 60, 420)}{again}")
    late = ceiling("debug-now", edge - 60, 300, ramp_of("node2", lag_s=OFF_LATE_S), "debug")
    second.write_policy(f"{RULES}ceilings:\n{ceiling('then', edge, 420)}{late}")
    for node in nodes:
        node.agent.reload()
    lowered = {minor: 300.0 if minor == debug else FREE[minor] for minor in range(4)}
    held = {minor: 300.0 if minor == debug else 420.0 for minor in range(4)}
    assert [capped(first), capped(second)] == [PEAK, list(lowered.values())]
    check_told(first, jobs["node1", "gpu"], edge)
    assert explained(second, jobs["node2", "debug"])["next_change"] == edge
    writes = {node.name: metric(node, "cap_writes_total") or 0 for node in nodes}

    seen = watch(nodes, edge + ON_AGAIN_S + 3)
    check_edge("a window closes", seen["node1"], edge, PEAK, FREE)
    check_edge("a ceiling is taken on in a ramp", seen["node1"], edge + ON_AGAIN_S, FREE, PEAK)
    check_edge("a window opens", seen["node2"], edge, list(lowered.values()), list(held.values()))
    check_edge("a ceiling is left in a ramp", seen["node2"], edge + OFF_LATE_S, list(held.values()), PEAK)
    for node, moved in ((first, 8), (second, 4)):
        assert metric(node, "cap_writes_total", cause="schedule") == moved
        assert metric(node, "cap_writes_total") == writes[node.name] + moved
    assert "takes on 52 s early (ramp)" in first.wattkeeper("explain", str(jobs["node1", "gpu"])).stdout
    gate.open()
    lab.wait_idle()
