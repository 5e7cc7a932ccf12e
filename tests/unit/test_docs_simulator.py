"""docs/simulator.md: its examples run, and its table is what the simulator does."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fit.table import with_table
from tests.lab.spec import REPO

PAGE = (REPO / "docs" / "simulator.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(command: list[str]) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("WATTKEEPER")} | {"PATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_run(tmp_path: Path) -> None:
    (shell,) = [block for block in blocks("") if block.startswith("$ eval")]
    lines = [line.removeprefix("$ ").replace("/tmp/gpus", str(tmp_path / "gpus")) for line in shell.splitlines()]
    shown = run(["bash", "-ec", "\n".join(lines)])
    assert "400 W" in shown
    assert shown.count("H100") == 4


def test_the_python_runs(tmp_path: Path) -> None:
    (program,) = blocks("python")
    assert int(run([sys.executable, "-c", program.replace("/tmp/gpus", str(tmp_path / "gpus"))])) > 0


def test_the_table_is_what_the_simulator_does() -> None:
    assert with_table(PAGE) == PAGE, "make plots"
