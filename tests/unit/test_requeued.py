"""A job that was requeued: what is shown is its last run, and what those before it used is told beside it."""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.one_node import AS_ASKED, OneNode, gpu
from tests.property.test_hostile_requests import Asker

from wattkeeper.agent.control import Control
from wattkeeper.api.server import Doors, Server
from wattkeeper.cli.job import lines_of
from wattkeeper.protocols import JobRecord


def requeued_twice() -> OneNode:
    """Job 501 has run twice and used 2.6 kJ and 1.8 kJ."""
    node = OneNode(gpu(0), policy=AS_ASKED)
    node.show("GPU-0", requested_mw=700_000)
    for restarts, used_mj in enumerate((2_600_000, 1_800_000)):
        node.prolog(501, "0", SLURM_JOB_RESTART_COUNT=str(restarts))
        node.go_on(10, GPU_0=used_mj)
        node.epilog(501, SLURM_JOB_RESTART_COUNT=str(restarts))
    return node


def ledgers(node: OneNode) -> Callable[[int, int], Sequence[JobRecord]]:
    """What the ledger knows of a job, newest run first."""
    return lambda job_id, _: [r for r in reversed(node.store.unrecorded()) if r.note.facts.key.job_id == job_id]


def ask(node: OneNode, path: str) -> str:
    """What a real server answers."""

    async def serve(folder: Path) -> str:
        doors = Doors(
            snapshot=node.snapshot,
            metrics=lambda _: (b"", "text/plain"),
            event=node._events.handle,
            control=Control(node.parts),
            changed=lambda: None,
            event_users=lambda: frozenset({os.geteuid()}),
            strict=lambda: False,
            past=ledgers(node),
        )
        server = Server(doors)
        await server.open_sockets(folder, None)
        try:
            return (await asyncio.to_thread(Asker(folder / "read.sock").ask, "GET", path))[1]
        finally:
            await server.close()

    with tempfile.TemporaryDirectory(prefix="wk") as folder:
        return asyncio.run(serve(Path(folder)))


def shown(answer: dict[str, Any]) -> list[str]:
    return [line for line in lines_of(answer, 0.0) if line.startswith(("job", "energy", "before"))]


def check(node: OneNode) -> None:
    answer = json.loads(ask(node, "/v1/jobs/501"))
    assert (answer["run"], answer["total"]["energy_j"]) == ("r1", 1800.0)
    assert (answer["earlier_runs"], answer["earlier_energy_j"]) == (["r0"], 2600.0)
    head, energy, before = shown(answer)
    assert head.startswith("job 501, run r1, of ")
    assert energy.startswith("energy  1.8 kJ")
    assert before == "before  an earlier run used 2.6 kJ on this node (r0)"
    line = ask(node, "/v1/jobs/501/line")
    assert line.startswith("wattkeeper: job 501 used 1.8 kJ (")
    assert line.endswith("); an earlier run used 2.6 kJ\n")


def test_while_the_agent_has_both_runs_in_mind() -> None:
    check(requeued_twice())


def test_when_the_agent_has_forgotten_the_first_run() -> None:
    node = requeued_twice()
    (first,) = [key for key in node.state.jobs if key.run == "r0"]
    del node.state.jobs[first]
    check(node)


def test_when_only_the_ledger_knows_it() -> None:
    node = requeued_twice()
    node.start()
    check(node)


def test_root_is_not_told_of_jobs_of_its_own_and_both_where_to_look() -> None:
    (name,) = json.loads(ask(OneNode(gpu(0)), "/v1/jobs/999")).values()
    whose = "" if os.geteuid() == 0 else " of yours"
    assert name == (
        f"this node knows no job 999{whose}, neither now nor in its ledger; "
        "ask on the job's own nodes: sacct -j 999 -o nodelist"
    )


def test_a_job_that_ran_once_has_no_earlier_runs() -> None:
    node = OneNode(gpu(0), policy=AS_ASKED)
    node.prolog(7, "0")
    answer = json.loads(ask(node, "/v1/jobs/7"))
    assert (answer["earlier_runs"], answer["earlier_energy_j"]) == ([], None)
    assert shown(answer)[0].startswith("job 7 of ")
