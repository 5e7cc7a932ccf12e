"""What others measured and published. Nothing here is ours, and nothing here is computed."""

from dataclasses import dataclass

ZEUS = "Zeus traces (github.com/ml-energy/zeus, Apache-2.0), one V100 PCIe of 250 W"
GRIDPILOT = "gridpilot (CC-BY-4.0), three V100"

CAPS_W = (100, 125, 150, 175, 200, 225)


@dataclass(frozen=True, slots=True)
class Training:
    """One job under caps of ``CAPS_W``: throughput and energy per unit of work, in percent of no cap."""

    name: str
    profile: str  # the simulator's
    uncapped_w: int
    throughput: tuple[int, ...]
    energy: tuple[int, ...]


TRAININGS = (
    Training("ResNet50", "resnet50", 218, (52, 68, 84, 91, 95, 98), (88, 80, 78, 83, 88, 95)),
    Training("BERT-SQuAD", "bert", 227, (47, 60, 76, 88, 94, 98), (96, 88, 85, 85, 89, 95)),
    Training("DeepSpeech2", "deepspeech2", 161, (73, 84, 90, 95, 97, 100), (84, 85, 87, 89, 92, 96)),
    Training("NCF", "ncf", 36, (99, 100, 101, 101, 101, 101), (99, 104, 95, 99, 99, 99)),
)
"""Source: ZEUS."""

DOWN_WITHIN_S = 0.05
UP_95_PERCENT_WITHIN_S = 0.5
OVERSHOOT_PERCENT = 0.7
"""Power after a new limit: at the lower one, back up, and above a limit that holds. Source: GRIDPILOT."""
