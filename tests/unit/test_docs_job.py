"""docs/users.md names every key of ``wattkeeper job --json``, and none that is not there."""

import json
import re
from collections.abc import Iterator

from tests.lab.spec import REPO
from tests.unit.test_requeued import ask, requeued_twice

USERS = REPO / "docs" / "users.md"


def documented() -> set[str]:
    _, _, section = USERS.read_text().partition("\n## For programs\n")
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row)}


def keys(value: object, name: str = "") -> Iterator[str]:
    """``gpus[].cap_w`` and the like, of a JSON value."""
    if isinstance(value, list):
        for element in value:
            yield from keys(element, f"{name}[]")
    elif isinstance(value, dict):
        for key, inner in value.items():
            path = f"{name}.{key}" if name else key
            yield path
            yield from keys(inner, path)


def test_the_keys_are_those_that_are_there() -> None:
    node = requeued_twice()
    assert set(keys(json.loads(ask(node, "/v1/jobs/501")))) == documented()
    node.start()  # an agent that has to ask the ledger
    past = {key for key in documented() if not key.startswith("gpus[].steps[]")}
    assert set(keys(json.loads(ask(node, "/v1/jobs/501")))) == past
