"""A real Prometheus that scrapes every agent, and evaluates every rule, once a second or as told."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.config import often, prometheus_yml
from tests.lab.processes import Daemon, environment
from tests.lab.spec import Files
from tests.lab.waiting import wait_until


class Prometheus:
    def __init__(
        self,
        files: Files,
        port: int,
        targets: dict[str, int],
        rules: Sequence[Path] = (),
        more: Sequence[Any] = (),
        scrape_s: int = 1,
    ) -> None:
        """`more`: further scrape configurations, whose targets have a label `node` each."""
        self.url = f"http://127.0.0.1:{port}"
        settings = files.etc / "prometheus.yml"
        copies = [files.etc / shipped.name for shipped in rules]
        for shipped, copy in zip(rules, copies, strict=True):
            copy.write_text(often(shipped.read_text()))
        settings.write_text(prometheus_yml(targets, copies, more, scrape_s))
        argv = [
            "prometheus",
            f"--config.file={settings}",
            f"--storage.tsdb.path={files.root / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        self.daemon = Daemon("prometheus", argv, environment(files.root), files.log / "prometheus.log")

    def start(self) -> None:
        self.daemon.start()

    def wait_ready(self) -> None:
        wait_until(self._ready, 5, "Prometheus is ready", note=False)

    def _ready(self) -> bool:
        self.daemon.check()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:  # noqa: S310 - our own address
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """An instant query: labels and value of every series."""
        return [(row["metric"], float(row["value"][1])) for row in self._get("query", query=expression)["result"]]

    def targets(self) -> dict[str, str]:
        """Health of every agent's target by node: up, down or unknown."""
        return {row["labels"]["node"]: row["health"] for row in self._get("targets", state="active")["activeTargets"]}

    def stop(self) -> None:
        self.daemon.stop()
