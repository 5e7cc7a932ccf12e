"""The agent without any privilege, the actuator without any network, and each without the other for a while."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.agents import TICK_S, gpu_status, limits, metric, post, set_behind, start_afresh, wait_limit
from tests.lab import Lab, Node, wait_until
from tests.lab.agent import AGENT_UID
from tests.lab.units import can_have_own_mounts

RETURN_BOUND_S = 2.0
PROBE_BOUND_S = 12.0


@pytest.fixture
def node(one_agent: Lab) -> Node:
    node = one_agent.node(1)
    start_afresh(node)
    return node


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def alarms(node: Node) -> list[str]:
    found: list[str] = node.agent.get("/v1/status")["alarms"]
    return found


def owner_of_port(port: int) -> int:
    """The process that listens on a TCP port of this machine, by the kernel's books."""
    rows = Path("/proc/net/tcp").read_text().splitlines()
    inodes = {row.split()[9] for row in rows[1:] if row.split()[3] == "0A" and row.split()[1].endswith(f":{port:04X}")}
    assert inodes, f"nobody listens on {port}"
    for process in Path("/proc").glob("[0-9]*"):
        if inodes & {target.removeprefix("socket:[").removesuffix("]") for target in open_files(process)}:
            return int(process.name)
    raise AssertionError(f"no process has the socket of port {port}")


def open_files(process: Path) -> Iterator[str]:
    """What its descriptors lead to, as far as it does not end or close them meanwhile."""
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(link.readlink())


@pytest.mark.skipif(AGENT_UID is None, reason="only root can start a process as another user")
def test_whoever_owns_the_port_has_no_privilege(node: Node) -> None:
    status = status_of(owner_of_port(node.agent.metrics_port))
    assert set(status["Uid"].split()) == {str(AGENT_UID)}
    assert {int(status[key], 16) for key in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


@pytest.mark.skipif(not can_have_own_mounts(), reason="only root where mounts are allowed can make a network namespace")
def test_root_has_no_network_and_few_capabilities(node: Node) -> None:
    pid = node.agent.actuator.pid
    status = status_of(pid)
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16).bit_count() == 3
    assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    routes = Path(f"/proc/{pid}/net/route").read_text().splitlines()[1:]
    assert routes == []  # there may be interfaces: some kernels give every namespace its own tunnels


def test_limits_stay_when_the_agent_dies_and_root_can_give_them_back(node: Node) -> None:
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    node.agent.kill()
    time.sleep(2 * TICK_S)
    assert limits(node)[0] == 250
    node.wattkeeper("restore", "--gpu", "0")
    assert limits(node)[0] == 700


def test_an_actuator_that_dies_is_missed_and_its_return_puts_everything_right(node: Node) -> None:
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    node.agent.actuator.kill()
    wait_until(lambda: "actuator" in str(alarms(node)), PROBE_BOUND_S, "an actuator that is gone is told")
    assert metric(node, "source_up", source="actuator") == 0
    energy = gpu_status(node)["energy_j"]
    set_behind(node, 0, 500)
    status, _ = node.agent.post_event("epilog", b"SLURM_JOB_ID=9\0SLURM_JOB_UID=0\0")
    assert status == 200  # nobody waits for what is not there longer than the hook's deadline
    wait_until(lambda: gpu_status(node)["energy_j"] > energy, RETURN_BOUND_S, "metered all the same", note=False)
    node.agent.actuator.start()
    wait_limit(node, 0, 250, RETURN_BOUND_S, "right again after the actuator is back")
    wait_until(lambda: metric(node, "source_up", source="actuator") == 1, PROBE_BOUND_S, "known to be back", note=False)
    wait_until(lambda: not alarms(node), PROBE_BOUND_S, "no alarm stays", note=False)


def test_an_agent_that_begins_without_an_actuator_takes_over_when_it_comes(node: Node) -> None:
    assert post(node, "prolog", 1, JOB_COMMENT="power=250W") == "applied"
    node.agent.kill()
    node.agent.actuator.kill()
    set_behind(node, 0, 500)
    node.agent.notify.clear()
    node.agent.daemon.start()  # alone
    node.agent.wait_ready(12)
    assert limits(node)[0] == 500
    node.agent.actuator.start()
    wait_limit(node, 0, 250, RETURN_BOUND_S, "capped by an agent that was there before its actuator")
    assert post(node, "epilog", 1) == "applied"
    wait_limit(node, 0, 700, RETURN_BOUND_S, "and given back")
