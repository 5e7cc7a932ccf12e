"""What every test may use: the lab, and a last word on what was not run and on every time that was measured."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.lab import Lab, LabSpec, NodeSpec, missing_programs
from tests.lab.waiting import figures

MEASURED = "measured"

# examples are counted, not timed: a busy machine must not fail a property
settings.register_profile("wattkeeper", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wattkeeper")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LastWord())
    os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost")  # all that tests ask is here
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
def pytest_runtest_makereport() -> Iterator[None]:
    """Times that were measured go with the test's report: the process that tests is not the one that tells."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    report.user_properties += [(MEASURED, str(figure)) for figure in figures]
    figures.clear()
    return report  # type: ignore[return-value]


class LastWord:
    """What a run ends with, in the process that tells."""

    def __init__(self) -> None:
        self._measured: list[object] = []
        self._not_run: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._measured += [value for name, value in report.user_properties if name == MEASURED]
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._not_run.append((report.nodeid, reason.removeprefix("Skipped: ")))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._measured:
            terminalreporter.section("measured")
            for figure in self._measured:
                terminalreporter.write_line(str(figure))
        if self._not_run:
            terminalreporter.section("not run here")
            for test, reason in sorted(self._not_run):
                terminalreporter.write_line(f"not run here: {test} — {reason}")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab of the whole run: three nodes of four H100 each, an agent on every node, Prometheus.

    Tests share it: one that ends leaves no job behind and the agents as it found them.
    """
    with Lab(LabSpec(nodes=(NodeSpec(),) * 3, prometheus=True)) as shared:
        yield shared
