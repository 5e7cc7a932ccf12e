"""How the demo is seen: drawn live on a terminal, or a line for each thing that happens."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

from wattkeeper.cli.output import Column, aligned, shown, watts

if TYPE_CHECKING:
    from rich.table import Table

_LINES = 12
_BAR = 20


class Show(Protocol):
    """Somebody to tell what happens."""

    def say(self, line: str) -> None:
        """Something happened."""
        ...

    def update(self, status: Mapping[str, Any]) -> None:
        """The agent's status now."""
        ...

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """A table, at the end."""
        ...

    def close(self) -> None:
        """The live part is over; what is said from now on stays."""
        ...


class PlainShow:
    """Lines, on standard output or error."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self._to_stderr = to_stderr

    def say(self, line: str) -> None:
        click.echo(line, err=self._to_stderr)

    def update(self, status: Mapping[str, Any]) -> None:
        return

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        for line in aligned(columns, rows):
            self.say(line)

    def close(self) -> None:
        return


class LiveShow:
    """A table of the GPUs that moves, with what happened last below it."""

    def __init__(self, *, color: bool) -> None:
        from rich.console import Console  # slow to import, and only needed here
        from rich.live import Live

        self._console = Console(highlight=False, no_color=not color)
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._status: Mapping[str, Any] | None = None
        self._live: Live | None = Live(console=self._console, auto_refresh=False)
        self._live.start()

    def say(self, line: str) -> None:
        if self._live is None:
            self._console.print(line, markup=False)
            return
        self._lines.append(line)
        self._refresh()

    def update(self, status: Mapping[str, Any]) -> None:
        self._status = status
        self._refresh()

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        from rich.text import Text

        table = _table([(column.heading, column.right) for column in columns])
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _refresh(self) -> None:
        from rich.console import Group
        from rich.text import Text

        if self._live is None:
            return
        parts: list[Table | Text] = [] if self._status is None else [_gpus(self._status), Text("")]
        parts += [Text(line, no_wrap=True, overflow="ellipsis") for line in self._lines]
        self._live.update(Group(*parts), refresh=True)


def _gpus(status: Mapping[str, Any]) -> "Table":
    from rich.text import Text

    table = _table([("GPU", True), ("job", True), ("draws", True), ("", False), ("limit", True), ("why", False)])
    for gpu in status["gpus"]:
        table.add_row(
            str(gpu["gpu"]),
            ",".join(gpu["holders"]) or "-",
            watts(gpu["power_w"]),
            _bar(gpu["power_w"], gpu["limit_w"], gpu["max_w"]),
            Text(watts(gpu["limit_w"]), style="yellow" if gpu["limit_w"] != gpu["baseline_w"] else ""),
            Text(shown(gpu["why"]), no_wrap=True, overflow="ellipsis"),
        )
    return table


def _bar(power: float | None, limit: float | None, most: float) -> Any:
    """The power as a bar, with a mark where the limit is."""
    from rich.text import Text

    filled = round(_BAR * (power or 0) / most)
    mark = min(_BAR - 1, round(_BAR * (limit or most) / most))
    text = Text()
    for at in range(_BAR):
        if at == mark:
            text.append("|", style="yellow bold")
        else:
            text.append("█" if at < filled else "·", style="green" if at < filled else "dim")
    return text


def _table(headings: Sequence[tuple[str, bool]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, right in headings:
        table.add_column(heading, justify="right" if right else "left", no_wrap=right)
    return table
