"""All of the simulator under the compiler's sanitizers: every function, every control, good arguments and bad."""

from collections.abc import Iterator

import pytest
from tests.hostile.damage import SIZE
from tests.hostile.host import Host, WorkerError, missing


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    if lack := missing():
        pytest.skip(lack)
    with Host() as made:
        yield made


def test_no_function_and_no_control_does_what_c_does_not_define(host: Host) -> None:
    assert host.ask("exercise", timeout_s=150) > 100_000


def test_damage_is_done_to_the_whole_file(host: Host) -> None:
    (size,) = set(host.ask("sizes").values())
    assert SIZE * 0.8 < size < SIZE * 1.2


def test_a_client_that_the_sanitizers_end_is_told_of(host: Host) -> None:
    with pytest.raises(WorkerError, match="AddressSanitizer"):
        host.ask("break_out")
    assert host.ask("sizes")
