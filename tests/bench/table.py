"""The rows as a table for people and as JSON for programs."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.bench.peers.published import PUBLISHED
from tests.bench.results import Figure, Row

STYLES = {"held": "green", "BEYOND": "bold red", "not measured here": "yellow"}


def print_table(rows: Sequence[Row], machine: str, took_s: float) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    table = Table(title="Numbers to hold", caption=f"{machine}; took {took_s:.0f} s", show_lines=True)
    for heading in ("what", "driver", "measured", "bound", "verdict", "peer, same run"):
        table.add_column(heading)
    for row in rows:
        measured = "\n".join(_measured(figure) for figure in row.figures)
        bounds = "\n".join(_bound(figure) for figure in row.figures)
        verdict = f"[{STYLES[row.verdict]}]{row.verdict}[/]"
        what = f"{row.what}\n[dim]{row.note}[/]" if row.note else row.what
        table.add_row(what, row.profile, measured, bounds, verdict, row.peer)
    console.print(table)
    console.print("Published by others, not measured here:")
    for published in PUBLISHED:
        console.print(f"  {published.what}: {published.figure} ({published.source})", soft_wrap=True)


def print_json(rows: Sequence[Row], machine: str, took_s: float) -> None:
    published = [vars(figure) for figure in PUBLISHED]
    report = {
        "machine": machine,
        "took_s": round(took_s, 1),
        "rows": [row.as_json() for row in rows],
        "published": published,
    }
    print(json.dumps(report, indent=2))


def _measured(figure: Figure) -> str:
    return f"{figure.name} {figure.value:.4g} {figure.unit}"


def _bound(figure: Figure) -> str:
    return "-" if figure.bound is None else f"≤ {figure.bound:g} {figure.unit}"
