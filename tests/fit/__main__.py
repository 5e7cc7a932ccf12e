"""``python -m tests.fit``: draws docs/simulator/*.svg and fills the table of docs/simulator.md, simulated against
published."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.fit import published
from tests.fit.measure import relative, step_response
from tests.fit.table import with_table

DOCS = Path(__file__).parents[2] / "docs"
OUT = DOCS / "simulator"
SIMULATED_AT_W = range(100, 251, 5)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "wattkeeper"  # the same drawing gives the same file
    mpl.rcParams["svg.fonttype"] = "none"
    for name, draw in (("caps", _draw_caps), ("steps", _draw_steps)):
        figure = Figure(figsize=(10, 4), layout="constrained")
        draw(figure)
        figure.savefig(OUT / f"{name}.svg", metadata={"Date": None})
        print(OUT / f"{name}.svg")
    page = DOCS / "simulator.md"
    page.write_text(with_table(page.read_text()))
    print(page)


def _draw_caps(figure: Figure) -> None:
    throughput, energy = figure.subplots(1, 2)
    for number, training in enumerate(published.TRAININGS):
        simulated = [relative(training.profile, cap_w) for cap_w in SIMULATED_AT_W]
        for axes, place, points in ((throughput, 0, training.throughput), (energy, 1, training.energy)):
            axes.plot(SIMULATED_AT_W, [pair[place] for pair in simulated], color=f"C{number}", label=training.name)
            axes.plot(published.CAPS_W, points, "o", color=f"C{number}")
    _label(throughput, "power limit, W", "throughput, % of no limit", "lines: simulated; dots: Zeus traces, V100 PCIe")
    _label(energy, "power limit, W", "energy per unit of work, %", "the same for energy")
    throughput.legend()


def _draw_steps(figure: Figure) -> None:
    down, up = figure.subplots(1, 2)
    for axes, (low, high), until_s, bound_s in (
        (down, (250, 150), 0.1, published.DOWN_WITHIN_S),
        (up, (150, 250), 0.7, published.UP_95_PERCENT_WITHIN_S),
    ):
        response = step_response(low, high, until_s)
        axes.step([s * 1000 for s, _ in response], [w for _, w in response], where="post")
        axes.axvline(bound_s * 1000, color="grey", linestyle=":")
    _label(
        down,
        "ms since the limit went from 250 W to 150 W",
        "power, W",
        "dotted: measured on V100, at the limit by then",
    )
    _label(up, "ms since the limit went from 150 W to 250 W", "power, W", "dotted: 95 % of the way by then")


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.title.set_fontsize(9)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
