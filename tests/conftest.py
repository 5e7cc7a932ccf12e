"""What every test may use: the lab, and a last word on what was not run and on every time that was measured."""

import os
from collections.abc import Iterator

import pytest

from tests.lab import Lab, LabSpec, NodeSpec, missing_programs
from tests.lab.waiting import figures

NOT_RUN = pytest.StashKey[list[tuple[str, str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NOT_RUN] = []
    os.umask(0o022)  # tests write settings and policies, which the agent refuses where a group can change them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything under tests/e2e needs the real Slurm lab."""
    missing = missing_programs(["prometheus"])
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"not installed on this machine: {', '.join(missing)}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        item.config.stash[NOT_RUN].append((item.nodeid, reason.removeprefix("Skipped: ")))
    return report  # type: ignore[return-value]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if figures:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.write_line(str(figure))
    if config.stash[NOT_RUN]:
        terminalreporter.section("not run here")
        for test, reason in config.stash[NOT_RUN]:
            terminalreporter.write_line(f"not run here: {test} — {reason}")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab of the whole run: three nodes of four H100 each, an agent on every node, Prometheus.

    Tests share it: one that ends leaves no job behind and the agents as it found them.
    """
    with Lab(LabSpec(nodes=(NodeSpec(),) * 3, prometheus=True)) as shared:
        yield shared
