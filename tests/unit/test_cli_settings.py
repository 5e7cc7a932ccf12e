"""Commands on a node whose settings cannot be used: no default stands in for a path that the file may name."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattkeeper.cli.main import cli
from wattkeeper.errors import WattkeeperError

UNKNOWN = "state_dir: /srv/ledger\ncolour: blue\n"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that this node's settings would be in."""
    path = tmp_path / "wattkeeper.yaml"
    monkeypatch.setattr("wattkeeper.config.settings.DEFAULT_PATH", path)
    monkeypatch.setattr("wattkeeper.cli.client.DEFAULT_RUN_DIR", tmp_path / "run")
    monkeypatch.delenv("WATTKEEPER_RUN_DIR", raising=False)
    monkeypatch.delenv("WATTKEEPER_CONFIG", raising=False)
    return path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


@pytest.mark.parametrize("words", [("report",), ("job", "7_1", "--run-dir", "/nowhere"), ("explain", "7_1")])
def test_a_path_out_of_settings_with_a_mistake_is_not_guessed(settings: Path, words: tuple[str, ...]) -> None:
    settings.write_text(UNKNOWN)
    result = run(*words)
    assert isinstance(result.exception, WattkeeperError)
    said = str(result.exception)
    assert said.startswith(f"{settings}:2: colour: unknown key")
    assert said.endswith("; see `wattkeeper check`")


def test_nor_out_of_settings_that_others_can_change(settings: Path) -> None:
    settings.write_text("state_dir: /srv/ledger\n")
    settings.chmod(0o666)
    error = str(run("report").exception)
    assert error.startswith(f"{settings}: lets its group ")
    assert error.endswith(f" and everybody write to it (mode 0666): chmod go-w {settings}; see `wattkeeper check`")


def test_many_mistakes_are_one_line(settings: Path) -> None:
    settings.write_text("colour: blue\nshape: round\nsize: large\n")
    error = str(run("report").exception)
    assert "(and 2 more); see `wattkeeper check`" in error
    assert "\n" not in error


def test_who_names_the_folder_needs_no_settings(settings: Path, tmp_path: Path) -> None:
    settings.write_text(UNKNOWN)
    error = str(run("report", "--state-dir", str(tmp_path / "ledger")).exception)
    assert error.startswith(f"{tmp_path}/ledger/state.db: there is no ledger")
    result = run("status", "--run-dir", str(tmp_path / "elsewhere"))
    assert result.stderr == ""
    assert str(result.exception).startswith(f"{tmp_path}/elsewhere/read.sock: no agent is listening")


@pytest.mark.parametrize("words", [("status",), ("job", "7"), ("resume",)])
def test_the_agent_can_be_asked_and_the_mistake_is_said(settings: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Who has just written a mistake wants to see how the agent is, which goes on by what it has."""
    settings.write_text(UNKNOWN)
    result = run(*words)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"wattkeeper: {settings}:2: colour: unknown key")
    assert line.endswith(f"; see `wattkeeper check`; looking for the agent in {tmp_path}/run, else use --run-dir")
    assert str(result.exception).startswith(f"{tmp_path}/run/")


def test_a_node_without_settings_has_the_defaults(settings: Path) -> None:
    result = run("status")
    assert result.stderr == ""
    assert str(result.exception).startswith("/run/wattkeeper/read.sock: ")


def test_the_environment_can_name_other_settings(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text(UNKNOWN)
    other = tmp_path / "other.yaml"
    other.write_text(f"state_dir: {tmp_path}/ledger\nrun_dir: {tmp_path}/elsewhere\npolicies: {tmp_path}/policies\n")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.yaml").write_text("version: 1\ncaps: [{name: all, cap: 321W}]\n")
    monkeypatch.setenv("WATTKEEPER_CONFIG", str(other))
    assert str(run("report").exception).startswith(f"{tmp_path}/ledger/state.db: there is no ledger")
    assert str(run("status").exception).startswith(f"{tmp_path}/elsewhere/read.sock: no agent is listening")
    assert f"{other}: fine: settings, mode enforce" in run("check").stdout
    assert "321 W" in run("explain", "--user", "alice", "--gpu-model", "H100").stdout


@pytest.mark.parametrize("words", [("report",), ("explain", "--gpu-model", "H100"), ("policy", "week"), ("restore",)])
def test_settings_that_it_names_have_to_be_there(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("WATTKEEPER_CONFIG", str(tmp_path / "lost.yaml"))
    error = run(*words).exception
    assert isinstance(error, WattkeeperError)
    assert str(error).startswith(f"{tmp_path}/lost.yaml: ")
