"""The command as a whole: its help, its exit statuses, and what it imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattkeeper.cli.main import COMMANDS, cli, main

GOLDEN = Path(__file__).parents[1] / "golden" / "cli-help.txt"
HEAVY = ("rich", "aiohttp", "pynvml", "msgspec", "yaml", "prometheus_client")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={"COLUMNS": "80"})


def test_help_is_as_agreed() -> None:
    printed = CliRunner().invoke(cli, ["--help"], prog_name="wattkeeper", terminal_width=100).output
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(printed)
    assert printed == GOLDEN.read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0, result.output
    assert "Example" in result.output or command == "hook"
    assert run(command, "-h").output == result.output


def test_version() -> None:
    assert run("--version").output.startswith("wattkeeper ")


def test_wrong_use_is_exit_status_2() -> None:
    assert run("nonsense").exit_code == 2
    assert run("job", "abc").exit_code == 2
    assert run("hold", "--for", "soon", "--reason", "x").exit_code == 2
    assert run("hold").exit_code == 2
    assert run("explain").exit_code == 2


def test_what_a_person_can_mend_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wattkeeper", "status", "--run-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error == (
        f"wattkeeper: {tmp_path}/read.sock: no agent is listening: is it running? "
        "See `systemctl status wattkeeper`, or use --run-dir\n"
    )


def test_run_says_what_is_wrong_with_its_settings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wattkeeper.cli.main", "run", "--config", str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == f"wattkeeper: {tmp_path}/none.yaml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("arguments", [["hook", "prolog"], ["status"], ["--help"]])
def test_light_commands_import_little(arguments: list[str], tmp_path: Path) -> None:
    """The hook is what a job waits for where there is no curl."""
    code = f"""
import sys
from wattkeeper.cli.main import cli
try:
    cli({arguments!r})
except BaseException:
    pass
print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    env = {**os.environ, "WATTKEEPER_RUN_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stderr.splitlines()[-1] == ""
