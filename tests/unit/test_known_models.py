"""The small table that policies are read with, beside the large one that GPUs are simulated by."""

import pytest

from wattkeeper.config.models import KNOWN, KnownRange
from wattkeeper.simulator.models import shipped_models

BY_NAME = {model.name: model for model in shipped_models().values()}


@pytest.mark.parametrize("known", [known for known in KNOWN if known.name in BY_NAME], ids=lambda known: known.name)
def test_a_model_has_one_range(known: KnownRange) -> None:
    model = BY_NAME[known.name]
    assert (known.min_mw, known.max_mw) == (model.min_mw, model.max_mw)


def test_the_two_have_most_models_in_common() -> None:
    assert len([known for known in KNOWN if known.name in BY_NAME]) > len(KNOWN) / 2
