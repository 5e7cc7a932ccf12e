"""How commands print: tables that are drawn on a terminal and aligned in a pipe, JSON, numbers with units."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import click

from wattkeeper.text import printable
from wattkeeper.units import Millijoules, Milliwatts, format_energy, format_power

NOTHING = "-"
NAMELESS = "(none)"
"""An account, partition or cluster that is not set, for people."""

_GAP = "  "
"""Between the columns of a table."""

_LONG_WORD = 16
"""A word that is longer may be broken where the terminal is narrow."""


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and on which side its cells stand."""

    heading: str
    right: bool = False


def print_json(data: object) -> None:
    """One JSON value, for programs. What a terminal would act on, or not draw, stands there as JSON's escape for it."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if not text.replace("\n", "").isprintable():
        text = "".join(char if char == "\n" or char.isprintable() else json.dumps(char)[1:-1] for char in text)
    click.echo(text)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn to the terminal's width where there is one and no figure would be cut, else ``aligned``."""
    if sys.stdout.isatty() and _least_width(columns, rows) <= shutil.get_terminal_size().columns:
        _draw(columns, rows)
    else:
        for line in aligned(columns, rows):
            click.echo(line)


def aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in plain text, every cell whole."""
    table = [[column.heading for column in columns], *rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(columns))]
    return [
        _GAP.join(
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in table
    ]


def _least_width(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """Of a drawn table: figures stand on one line each, text is broken between words, and within long ones."""
    least = 0
    for column, *cells in zip(columns, *rows, strict=True):
        texts = [column.heading, *cells]
        words = texts if column.right else [word[:_LONG_WORD] for text in texts for word in text.split()]
        least += len(_GAP) + max(map(len, words), default=0)
    return least - len(_GAP)


def _draw(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # slow to import, and only needed here
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.right else "left"
        table.add_column(column.heading, justify=justify, no_wrap=column.right, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def shown(text: object) -> str:
    """Text from the agent, which is escaped already, or a user's, which may not be; nothing: a dash."""
    if text is None or text == "":
        return NOTHING
    whole = str(text)
    bare = whole.replace("\\", "/")
    return whole if printable(bare, len(bare)) == bare else printable(whole, 500)


def watts(value: float | None) -> str:
    """``250 W``, or a dash; to a tenth."""
    return NOTHING if value is None else format_power(Milliwatts(round(value * 10) * 100)).replace(".0 W", " W")


def energy(joules: float | None) -> str:
    """``12.3 kJ``, or a dash."""
    return NOTHING if joules is None else format_energy(Millijoules(round(joules * 1000)))


def gpu_names(minors: Sequence[int]) -> str:
    """``GPU 0`` or ``GPUs 0,1``."""
    return f"GPU{'s' if len(minors) > 1 else ''} {','.join(map(str, minors))}"


def step_line(step: Mapping[str, Any]) -> str:
    """``rule: cap 250 W (policy.yaml:4)``."""
    place = f" ({shown(step['source'])})" if step.get("source") else ""
    return f"{shown(step['kind'])}: {shown(step['text'])}{place}"


_ALIKE = ("model", "cap_w", "decided_w", "observe", "not_set", "outcome", "asked", "rule", "steps", "alone_w", "until")


@dataclass(frozen=True, slots=True)
class Group:
    """GPUs of a job that are alike: the same steps, cap and outcome."""

    minors: tuple[int, ...]
    gpu: Mapping[str, Any]


def alike(gpus: Sequence[Mapping[str, Any]]) -> list[Group]:
    """The GPUs of a job as the agent gives them, those with the same decision together, by minor number."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for gpu in sorted(gpus, key=lambda gpu: int(gpu["gpu"])):
        same = {name: gpu.get(name) for name in _ALIKE}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(gpu)
    return [Group(tuple(int(gpu["gpu"]) for gpu in found), found[0]) for found in groups.values()]


def got(group: Group) -> str:
    """``250 W``, ``250 W each``, or what stands in the way of a number."""
    gpu, each = group.gpu, " each" if len(group.minors) > 1 else ""
    cap, decided = gpu.get("cap_w"), f"{watts(gpu.get('decided_w'))}{each}"
    if gpu.get("observe"):
        return f"not capped: it would be {decided} (observed only: nothing is written)"
    if gpu.get("not_set"):
        last = "" if cap is None else f" (last set to {watts(cap)}{each})"
        return f"not capped at {decided}{last}: {shown(gpu['not_set'])}"
    if cap is not None:
        return f"{watts(cap)}{each}"
    return "limit left alone" if gpu.get("steps") else "not capped"
