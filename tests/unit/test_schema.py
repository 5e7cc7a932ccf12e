"""docs/schema is made from the code, and fits what is shipped. WATTKEEPER_UPDATE_GOLDEN=1 writes it anew."""

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from tests import yaml12

from wattkeeper.cli.check import check
from wattkeeper.config.policy import POLICY_KEYS
from wattkeeper.config.schema import ecma
from wattkeeper.config.settings import SETTINGS_KEYS

REPO = Path(__file__).resolve().parents[2]
SCHEMA = REPO / "docs" / "schema"
POLICIES = sorted(REPO.glob("policies/*.yaml"))
_FENCE = re.compile(r"^```yaml\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def printed(kind: str) -> str:
    result = CliRunner().invoke(check, ["--schema", kind])
    assert result.exit_code == 0
    return result.output


def validator(kind: str) -> jsonschema.Draft7Validator:
    schema = json.loads(printed(kind))
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize("kind", ["policy", "settings"])
def test_the_schema_in_docs_is_current(kind: str) -> None:
    file = SCHEMA / f"{kind}.schema.json"
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN") == "1":
        file.write_text(printed(kind), encoding="utf-8")
    assert file.read_text(encoding="utf-8") == printed(kind)


def test_every_key_at_the_top_is_in_it_and_says_what_it_is() -> None:
    for kind, keys in (("policy", POLICY_KEYS), ("settings", SETTINGS_KEYS)):
        properties = json.loads(printed(kind))["properties"]
        assert tuple(properties) == keys
        assert all(value["description"] for value in properties.values())


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.name)
def test_shipped_policies_fit(file: Path) -> None:
    validator("policy").validate(yaml12.load(file.read_text(encoding="utf-8")))


def test_shipped_settings_fit() -> None:
    validator("settings").validate(yaml12.load((REPO / "policies/wattkeeper.yaml.example").read_text(encoding="utf-8")))
    validator("settings").validate(yaml12.load("# all defaults\n"))


def test_examples_in_the_documents_fit() -> None:
    policy, settings = validator("policy"), validator("settings")
    for page in sorted((REPO / "docs").rglob("*.md")):
        for block in _FENCE.finditer(page.read_text(encoding="utf-8")):
            value = yaml12.load(block["text"])
            kind = policy if isinstance(value, dict) and set(value) & set(POLICY_KEYS) else settings
            assert list(kind.iter_errors(value)) == [], f"{page.name}: {block['text']}"


@pytest.mark.parametrize("name", ["policy-of-mistakes.yaml", "settings-of-mistakes.yaml"])
def test_files_of_mistakes_do_not_fit(name: str) -> None:
    text = (REPO / "tests/golden" / name).read_text(encoding="utf-8")
    kind = validator(name.partition("-")[0])
    assert len({error.json_path for error in kind.iter_errors(yaml12.load(text))}) >= 10


def test_patterns_are_what_javascript_reads_too() -> None:
    """No names of groups, no flags, no ``\\w``, which JavaScript takes for ASCII."""
    assert ecma(re.compile(r"(?P<a>[km]?w|)\s", re.IGNORECASE)) == r"(?:[kmKM]?[wW]|)\s"
    assert ecma(re.compile(r"[a-z_]x\Z", re.IGNORECASE)) == "[a-z_A-Z][xX]$"
    beyond = re.compile(ecma(re.compile(r"[\w.]+")))
    assert beyond.fullmatch("aZ_9.Ü\U0001d49c")
    assert not any(beyond.fullmatch(char) for char in " -/:@[`{\x7f\n")
    for kind in ("policy", "settings"):
        for pattern in re.findall(r'"pattern": "(.*)"', printed(kind)):
            assert not re.search(r"\(\?[^:=!]|\\\\[wWdDZA]", pattern), pattern
