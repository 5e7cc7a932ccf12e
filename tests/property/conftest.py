"""Examples are counted, not timed: a busy machine must not fail a property."""

from hypothesis import HealthCheck, settings

settings.register_profile("wattkeeper", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wattkeeper")
