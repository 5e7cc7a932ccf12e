"""Times of day as people on the site read them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from wattkeeper.moments import shown_at

ZURICH = ZoneInfo("Europe/Zurich")


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2027-07-01T16:00:00", "18:00 CEST"),
        ("2027-07-01T16:00:07", "18:00:07 CEST"),
        ("2027-07-01T22:00:00", "2027-07-02 00:00 CEST"),
        ("2027-06-30T21:59:00", "2027-06-30 23:59 CEST"),
        ("2027-10-31T04:15:00", "2027-10-31 05:15 CET"),
    ],
)
def test_the_day_is_told_where_it_is_another(moment: str, words: str) -> None:
    now_at = datetime(2027, 7, 1, 10, tzinfo=UTC).timestamp()
    assert shown_at(datetime.fromisoformat(f"{moment}+00:00").timestamp(), now_at, ZURICH) == words
