"""No state file, whatever is in it, makes a client crash or hang."""

from collections.abc import Iterator
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, example, given, settings
from tests.hostile.damage import Damage, damages
from tests.hostile.host import Host, missing


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    if lack := missing():
        pytest.skip(lack)
    with Host() as made:
        yield made


@given(damage=damages)
@settings(max_examples=400, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(Damage("planned", ((344, "0a000000"),)))  # starts a load that there is not
@example(Damage("planned", ((2080, "00000080"),)))  # and a fault
@example(Damage("planned", ((108, "00e1f505"),)))  # time is far ahead of things done every 0.1 s
@example(Damage("trace", ((16, "01"),)))  # a writer died
@example(Damage("busy", (), 0))
def test_a_damaged_state_answers_an_error_or_a_value(host: Host, damage: Damage) -> None:
    assert host.ask("damaged", timeout_s=20, **asdict(damage)).startswith(("read", "errno"))
