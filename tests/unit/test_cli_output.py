"""Tables on terminals of any width."""

import os
import pty
import re
import subprocess
import sys

import pytest

from wattkeeper.cli.output import Column

REPORT = (
    [Column("account"), *(Column(name, right=True) for name in ("energy, kWh", "GPU-hours", "mean power"))],
    [["ml-research", "37.000", "60.00", "617 W"], ["unattributed", "1.000", "-", "-"]],
)
REASON = "rule everyone of /etc/wattkeeper/policies.d/10-site.yaml allows no more"
STATUS = ([Column("GPU"), Column("limit", right=True), Column("why")], [["0", "250 W", REASON]])
PRINT = "import sys; from wattkeeper.cli.output import *; print_table(*eval(sys.argv[1]))"


def on_terminal(width: int, table: object) -> list[str]:
    """The lines of a table on a terminal of that width, without its colours."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(width), "TERM": "xterm"}
    try:
        subprocess.run([sys.executable, "-c", PRINT, repr(table)], stdout=theirs, env=environment, check=True)
    finally:
        os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        text = b""
        try:
            while part := terminal.read1(65536):
                text += part
        except OSError:  # the terminal's other end has gone
            pass
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()]


@pytest.mark.parametrize("width", [20, 40, 47, 48, 80])
def test_no_figure_is_cut(width: int) -> None:
    assert on_terminal(width, REPORT) == [
        "account       energy, kWh  GPU-hours  mean power",
        "ml-research        37.000      60.00       617 W",
        "unattributed        1.000          -           -",
    ]


@pytest.mark.parametrize(("width", "most"), [(120, 2), (60, 4), (32, 8)])
def test_long_text_is_broken_to_the_width_and_nothing_of_it_is_lost(width: int, most: int) -> None:
    lines = on_terminal(width, STATUS)
    assert 2 <= len(lines) <= most
    assert max(map(len, lines)) <= width
    assert "".join(line[12:] for line in lines[1:]).replace(" ", "") == REASON.replace(" ", "")


def test_where_not_even_words_fit_each_line_is_whole() -> None:
    assert on_terminal(20, STATUS)[1] == f"0    250 W  {REASON}"
