"""`wattkeeper check --models`: caps that some known model of GPU cannot take as they are."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattkeeper.cli.check import check


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def models(cap: str, *, when: str = "{}", arguments: tuple[str, ...] = ("--models",)) -> Result:
    Path("p.yaml").write_text(f"version: 1\ncaps:\n  - name: a\n    when: {when}\n    cap: {cap}\n")
    return CliRunner().invoke(check, [*arguments, "p.yaml"])


def test_a_share_that_is_less_than_a_model_takes() -> None:
    result = models("25%", when='{gpu_model: "*H100 80GB*"}')
    assert result.exit_code == 0
    outside = "is clamped on 1 known model: NVIDIA H100 80GB HBM3 (175 W, takes 200 W to 700 W)"
    assert result.output.splitlines()[0] == f"p.yaml:5: warning: caps[a].cap: {outside}"
    assert models("25%", when='{gpu_model: "*H100 80GB*"}', arguments=()).output.startswith("p.yaml: fine")
    assert models("25%", arguments=("--models", "-W")).exit_code == 1


def test_watts_that_some_models_take_and_others_do_not() -> None:
    output = models("120W", when='{gpu_model: "*V100*"}').output
    assert "Tesla V100-SXM2-16GB (120 W, takes 150 W to 300 W)" in output
    assert "V100-PCIE" not in output
    assert " and 3 more\n" in models("120W").output


@pytest.mark.parametrize("cap", ["baseline", "min", "max", "default", "90%", '[{model: "*A100-SXM4*", cap: 250W}]'])
def test_what_all_take_is_fine(cap: str) -> None:
    assert models(cap).output.startswith("p.yaml: fine")


def test_models_that_the_rule_excludes_do_not_count() -> None:
    assert models("120W", when='{gpu_model: "Tesla V100-PCIE*"}').output.startswith("p.yaml: fine")
    assert "Tesla V100-SXM2" not in models("120W", when='{not: {gpu_model: "*SXM2*"}}').output


def test_a_cap_is_told_of_once() -> None:
    result = models('[{model: "*V100*", cap: 500W}]')
    assert result.output.count("warning: ") == 1
    assert "is clamped on 2 known models" in result.output


def test_a_profile_is_told_of_where_it_stands() -> None:
    Path("p.yaml").write_text(
        "version: 1\nprofiles:\n  x: {cap: 10%}\ncaps: [{name: a, when: {user: u}, cap: x}, {name: b, cap: x}]\n"
    )
    result = CliRunner().invoke(check, ["--models", "p.yaml"])
    assert result.output.startswith("p.yaml:3: warning: profiles.x.cap: is clamped on ")
    assert " more\n" in result.output
