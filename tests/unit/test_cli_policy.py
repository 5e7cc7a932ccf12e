"""``wattkeeper policy week`` and ``explain --at``: when what holds, by the site's clock."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattkeeper.cli.main import cli

GOLDEN = Path(__file__).parents[1] / "golden" / "cli-policy-week.txt"
POLICY = """\
version: 1
caps:
  - name: night
    when: {partition: gpu, schedule: {hours: "22:00-06:00"}}
    cap: baseline
  - name: often
    when: {schedule: {cron: "*/20 6-12 * * sat", for: 5m}}
    cap: 60%
  - name: everyone
    cap: 90%
ceilings:
  - name: summer-peak
    when: {schedule: {months: jun-sep, days: mon-fri, hours: "12:00-18:00"}}
    cap: 70%
  - name: office-hours-abroad
    when: {schedule: {days: mon-fri, hours: "09:00-17:00", zone: America/New_York}}
    cap: 500W
    ramp: 30m
  - name: not-by-night
    when: {not: {schedule: {cron: "15 22 * * *", for: 8h}}}
    cap: 600W
    ramp: 0
"""
QUESTIONS = (
    ("policy", "week", "policy.yaml", "--from", "2027-06-28"),
    ("policy", "week", "policy.yaml", "--from", "2027-03-26"),
    ("policy", "week", "plain.yaml", "--from", "2027-03-26"),
    ("explain", "--policy", "policy.yaml", "--gpu-model", "H100", "--node", "n7", "--at", "2027-07-01T11:55"),
    ("explain", "--policy", "policy.yaml", "--gpu-model", "H100", "--node", "n7", "--at", "2027-07-01T13:00+02:00"),
    ("explain", "--policy", "policy.yaml", "--gpu-model", "H100", "--node", "n7", "--at", "2027-07-01T18:03"),
    ("explain", "--policy", "policy.yaml", "--gpu-model", "H100", "--partition", "gpu", "--at", "2027-10-31T02:30"),
    ("explain", "--policy", "plain.yaml", "--gpu-model", "H100", "--at", "2027-07-01"),
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Europe/Zurich")
    Path("policy.yaml").write_text(POLICY)
    Path("plain.yaml").write_text("version: 1\ncaps: [{name: everyone, cap: 90%}]\n")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_its_words() -> None:
    printed = ""
    for question in QUESTIONS:
        result = run(*question)
        assert result.exit_code == 0, result.output
        printed += f"$ wattkeeper {' '.join(question)}\n{result.output}\n"
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(printed)
    assert printed == GOLDEN.read_text()


def test_json_has_each_window_with_its_offset() -> None:
    told = json.loads(run("policy", "week", "policy.yaml", "--from", "2027-06-28", "--json").output)
    assert (told["from"], told["zone"]) == ("2027-06-28T00:00:00+02:00", "Europe/Zurich")
    peak = next(part for part in told["parts"] if part["name"] == "summer-peak")
    assert (peak["kind"], peak["cap"], peak["ramp_s"], peak["by"]) == ("ceiling", "70%", 600, ["schedule"])
    assert peak["windows"][0] == {"start": "2027-06-28T12:00:00+02:00", "end": "2027-06-28T18:00:00+02:00"}
    assert len(peak["windows"]) == 5


def test_the_settings_zone_wins_over_the_machines() -> None:
    Path("s.yaml").write_text(f"policies: {Path.cwd()}/policy.yaml\ntime_zone: UTC\n")
    week = run("policy", "week", "--config", "s.yaml", "--from", "2027-06-28")
    assert week.output.startswith("2027-06-28 to 2027-07-04, UTC\n")
    question = ("--config", "s.yaml", "--gpu-model", "H100", "--at", "2027-07-01T12:00")
    told = json.loads(run("explain", *question, "--json").output)
    assert (told["at"], told["cap_w"]) == ("2027-07-01T12:00:00+00:00", 490.0)
    assert "2027-07-01T12:30" < told["next_change"] <= "2027-07-01T13:00:00+00:00"  # New York's ramp, then office hours


def test_files_make_one_policy_and_mistakes_are_told() -> None:
    Path("more.yaml").write_text("version: 1\nceilings: [{name: x, when: {schedule: {days: sun}}, cap: 50%}]\n")
    both = run("policy", "week", "policy.yaml", "more.yaml", "--json")
    assert [part["name"] for part in json.loads(both.output)["parts"]][2:4] == ["not-by-night", "x"]
    Path("more.yaml").write_text("version: 1\nceilings: [{name: x, when: {schedule: {days: sum}}, cap: 50%}]\n")
    wrong = run("policy", "week", "more.yaml")
    assert wrong.exit_code == 1
    assert "more.yaml:2: ceilings[x].when.schedule.days: 'sum' is no day" in str(wrong.exception)


@pytest.mark.parametrize("wrong", ["soon", "2027-07-01T25:00", "2027-02-30", "0001-01-01", "9999-12-31T23:59", "13:00"])
def test_what_is_no_moment_is_wrong_use(wrong: str) -> None:
    result = run("explain", "--policy", "policy.yaml", "--gpu-model", "H100", "--at", wrong)
    assert result.exit_code == 2
    assert "--at" in result.output


def test_a_job_that_is_here_is_explained_as_it_was_decided() -> None:
    assert run("explain", "12", "--at", "2027-07-01T12:00").exit_code == 2
    assert run("policy", "week", "policy.yaml", "--from", "tomorrow").exit_code == 2
