"""What tests of simulated GPUs share: the library as its sources are now, and a folder for GPUs."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_simulator import refresh_in_tree


@pytest.fixture(scope="session", autouse=True)
def _library() -> None:
    refresh_in_tree()


@pytest.fixture(scope="session", autouse=True)
def _patient() -> Iterator[None]:
    """A disk that works may be slow on a busy machine: a test that is about that says its own time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wattkeeper.agent.ledger.COMMIT_DEADLINE_S", 60.0)
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="wattkeeper-sim-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
