"""The report of a cluster, from a real Prometheus, against the reports of its nodes, from their ledgers."""

import json
import time
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest

from tests.e2e.agents import TICK_S, post
from tests.lab import Lab, LabSpec, Node, NodeSpec, wait_until

JOBS = (("ml", "gpu", 2.5), ("ml", "debug", 0.6), ("bio", "gpu", 0.6), (None, "gpu", 1.2))
"""Account, partition and seconds of each job; the scrape interval is a second."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    node = NodeSpec(settings={"interval": f"{TICK_S}s"})
    with Lab(LabSpec(nodes=(node, node), prometheus=True)) as lab:
        yield lab


def report(node: Node, *words: str) -> dict[str, Any]:
    """What `wattkeeper report` says, as a program reads it."""
    answer: dict[str, Any] = json.loads(node.wattkeeper("report", "--since", "2d", "--json", *words).stdout)
    return answer


def energies(answer: dict[str, Any]) -> dict[tuple[str | None, str | None], float]:
    return {(row["account"], row["partition"]): row["energy_j"] for row in answer["rows"]}


def test_the_cluster_is_the_sum_of_its_ledgers(cluster: Lab) -> None:
    prometheus = cluster.prometheus
    assert prometheus is not None
    wait_until(lambda: set(prometheus.targets().values()) == {"up"}, 10, "all are scraped", note=False)
    for node in cluster.nodes.values():
        for minor, (account, partition, seconds) in enumerate(JOBS):
            more = {} if account is None else {"JOB_ACCOUNT": account}
            node.simulation.load(minor, 0.8)
            assert post(node, "prolog", minor + 1, str(minor), JOB_PARTITION=partition, **more) == "applied"
            time.sleep(seconds)
            assert post(node, "epilog", minor + 1, str(minor), JOB_PARTITION=partition, **more) == "applied"
            node.simulation.load(minor, 0)
    by = ("--by", "account,partition")
    nodes = [report(node, *by) for node in cluster.nodes.values()]
    told = {key: sum(energies(answer)[key] for answer in nodes) for key in energies(nodes[0])}
    assert set(told) == {("ml", "gpu"), ("ml", "debug"), ("bio", "gpu"), (None, "gpu")}
    assert min(told.values()) > 50

    def whole() -> dict[str, Any]:
        return report(cluster.node(1), *by, "--prometheus", prometheus.url)

    expected = pytest.approx(told, rel=0.01)
    wait_until(lambda: energies(whole()) == expected, 5, f"Prometheus sums {told}", note=False)
    assert [sum(row["jobs"] for row in answer["rows"]) for answer in nodes] == [len(JOBS)] * 2
    assert whole()["idle"]["energy_j"] > 0
    days = report(cluster.node(1), "--by", "day", "--prometheus", prometheus.url)["rows"]
    today = date.today()  # noqa: DTZ011 - the days are local
    assert date.fromisoformat(days[-1]["day"]) in {today, today - timedelta(days=1)}
    assert sum(day["energy_j"] for day in days) == pytest.approx(sum(told.values()), rel=0.01)
