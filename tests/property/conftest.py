"""Examples are counted, not timed: a busy machine must not fail a property."""

from hypothesis import settings

settings.register_profile("wattkeeper", deadline=None)
settings.load_profile("wattkeeper")
