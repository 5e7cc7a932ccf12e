"""The fit as a table of docs/simulator.md."""

from tests.fit import published
from tests.fit.measure import relative

BEGIN, END = "<!-- fit: make plots -->\n", "<!-- end of fit -->\n"


def with_table(page: str) -> str:
    """The page with the table between its marks made anew."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def table() -> str:
    """Simulated (published) throughput / energy per unit of work, in percent of no limit."""
    lines = [
        "| job (W without a limit) | " + " | ".join(f"{cap_w} W" for cap_w in published.CAPS_W) + " |\n",
        "| --- |" + " --- |" * len(published.CAPS_W) + "\n",
    ]
    for training in published.TRAININGS:
        cells = []
        for cap_w, throughput, energy in zip(published.CAPS_W, training.throughput, training.energy, strict=True):
            simulated, spent = relative(training.profile, cap_w)
            cells.append(f"{simulated:.0f} ({throughput}) / {spent:.0f} ({energy})")
        lines.append(f"| {training.name} ({training.uncapped_w}) | " + " | ".join(cells) + " |\n")
    return "".join(lines)
