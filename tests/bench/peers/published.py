"""Figures that others have published. They stand in the report as what they are: nobody measures or imitates them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    what: str
    figure: str
    source: str


PUBLISHED = (
    Published("nvidia-smi -pl", "32 ms a GPU", "gridpilot's measurements on three V100, CC-BY-4.0"),
    Published("a Slurm Prolog", "180 ms", "the DeepOps project, of its own prolog"),
    Published("dcgm-exporter", "135 to 155 MiB RSS", "reports in its issue tracker"),
    Published("CEEMS exporter", "under 20 MB RSS, 50 ms CPU a scrape", "the CEEMS project"),
)
