"""The shipped scrape job in the real Prometheus: which labels series come out with."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import wait_until
from tests.lab.processes import free_ports
from tests.lab.prometheus import Prometheus
from tests.lab.spec import REPO, Files
from tests.unit.web_here import serving

PAGE = REPO / "tests" / "golden" / "metrics.txt"
"""What an agent on node gpu-node-1 of Slurm's cluster c1 shows."""


def shipped_job(targets: Path) -> dict[str, Any]:
    """The job as it is shipped, but for its name and haste, and for where the nodes are listed."""
    job: dict[str, Any] = yaml.safe_load((REPO / "deploy" / "prometheus" / "scrape.yml").read_text())["scrape_configs"][
        0
    ]
    return {
        **job,
        "job_name": "shipped",
        "scrape_interval": "200ms",
        "scrape_timeout": "200ms",
        "file_sd_configs": [{"files": [str(targets)]}],
    }


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes one node, listed with the label `cluster` that the site gives it."""
    files = Files(tmp_path_factory.mktemp("scrape"))
    for needed in (files.etc, files.log):
        needed.mkdir()
    with serving() as site:
        site.page = PAGE.read_bytes()
        listed = files.etc / "nodes-all.json"
        listed.write_text(json.dumps([{"targets": [f"127.0.0.1:{site.port}"], "labels": {"cluster": "alpha"}}]))
        (port,) = free_ports(1)
        prometheus = Prometheus(files, port, {}, more=[shipped_job(listed)])
        prometheus.start()
        try:
            prometheus.wait_ready()
            wait_until(lambda: prometheus.query("wattkeeper_node_info"), 7, "it has scraped", note=False)
            yield prometheus
        finally:
            prometheus.stop()


def labels(prometheus: Prometheus, metric: str) -> dict[str, str]:
    """Once there is one: a scrape that came late takes a series away until the next."""
    found = wait_until(lambda: prometheus.query(metric), 7, f"{metric} is there", note=False)
    return {name: value for name, value in found[0][0].items() if name not in {"__name__", "job"}}


def test_node_info_has_slurms_names(prometheus: Prometheus) -> None:
    found = labels(prometheus, "wattkeeper_node_info")
    assert found.pop("instance").startswith("127.0.0.1:")
    assert found == {"node": "gpu-node-1", "cluster": "c1"}


def test_everything_else_has_the_targets(prometheus: Prometheus) -> None:
    for metric in ("up", "wattkeeper_account_energy_joules_total", "wattkeeper_gpu_info"):
        found = labels(prometheus, metric)
        assert (found["node"], found["cluster"]) == ("127.0.0.1", "alpha")
    assert prometheus.query('{exported_node!=""} or {exported_cluster!=""}') == []
