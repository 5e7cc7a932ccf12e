"""Jobs + idle + unattributed = the counters, summed from the ledger's file; the fuller version is `make chaos`."""

import pytest

from tests.chaos.conserve import killed, seed_of_environment, short_jobs
from tests.chaos.kills import places


def test_a_thousand_short_jobs_are_billed_to_the_millijoule() -> None:
    seed = seed_of_environment()
    print(f"WATTKEEPER_SEED={seed}")
    outcome = short_jobs(seed, 1000)
    print(outcome)
    assert not outcome.wrong
    assert outcome.jobs == 1000


@pytest.mark.timeout(400)
def test_no_joule_is_lost_or_counted_twice_through_fifty_kills() -> None:
    seed = seed_of_environment()
    print(f"WATTKEEPER_SEED={seed}")
    outcome = killed(seed, 200, 50)
    print(outcome)
    assert not outcome.wrong
    assert outcome.jobs == 200
    assert outcome.deaths.at.total() == 50
    assert set(outcome.deaths.at) == set(places())
