"""`wattkeeper check --diff`: which jobs would get another cap, in words, in JSON and as an exit code."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattkeeper.cli.check import check
from wattkeeper.config.jobs import load_jobs

REPO = Path(__file__).resolve().parents[2]
GOLDEN = REPO / "tests" / "golden" / "cli-check-diff.txt"
OLD = "version: 1\ncaps: [{name: everyone, cap: baseline, requests: {min: min, max: baseline}}]\n"
NEW = """\
version: 1
caps:
  - {name: urgent, when: {qos: urgent}, cap: baseline}
  - {name: students, when: {group: students}, cap: 150W}
  - {name: everyone, cap: baseline, requests: {min: 60%, max: baseline}}
"""
NIGHT = """\
version: 1
caps: [{name: everyone, cap: baseline, requests: {min: min, max: baseline}}]
ceilings: [{name: day, when: {schedule: {hours: "08:00-20:00", zone: UTC}}, cap: 50%, ramp: 0}]
"""
RECORD = {
    "v": 1, "cluster": "lab", "job_id": 4711, "run": "r0", "node": "gpu-07", "user": "alice", "uid": 1000,
    "account": "physics", "partition": "gpu", "qos": "urgent", "job_name": "train", "started_at": 1795600000.25,
    "asked": None, "outcome": "none", "rule": "everyone", "gpus": [{"gpu": 0, "model": "NVIDIA H100 80GB HBM3"}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    for name, text in (("old.yaml", OLD), ("new.yaml", NEW), ("night.yaml", NIGHT)):
        Path(name).write_text(text)


def diff(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(check, ["--diff", *arguments], input=stdin)


def records(*changes: Mapping[str, object]) -> str:
    return "".join(f"{json.dumps({**RECORD, **change})}\n" for change in changes)


def changed(result: Result) -> dict[str, tuple[float, float]]:
    """Names of the jobs that change, with both caps in watts."""
    return {job["name"]: (job["old"]["cap_w"], job["new"]["cap_w"]) for job in json.loads(result.output)["changes"]}


def test_shows_which_example_jobs_get_another_cap() -> None:
    result = diff("old.yaml", "new.yaml", "--at", "2027-07-01T13:00")
    assert result.exit_code == 1
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN") == "1":
        GOLDEN.write_text(result.output)
    assert result.output == GOLDEN.read_text()


def test_policies_that_come_to_the_same_exit_0() -> None:
    Path("other.yaml").write_text(OLD.replace("everyone", "all"))
    result = diff("old.yaml", "other.yaml")
    assert result.exit_code == 0
    assert re.match(r"none of 22 jobs would get another cap, at ", result.output)


def test_what_cannot_be_used_exits_2() -> None:
    Path("bad.yaml").write_text("version: 2\n")
    result = diff("old.yaml", "bad.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "bad.yaml:1: version: '2' is not one of these" in result.stderr
    assert diff("old.yaml", "new.yaml", "--jobs", "missing").exit_code == 2
    assert diff("old.yaml").exit_code == 2


@pytest.mark.parametrize("more", [("--jobs", "x"), ("--at", "2027-07-01"), ("--schema", "policy", "--models")])
def test_options_that_make_no_sense_are_wrong_use(more: tuple[str, ...]) -> None:
    assert CliRunner().invoke(check, list(more)).exit_code == 2
    assert diff("old.yaml", "new.yaml", "p.yaml").exit_code == 2


def test_json_has_both_decisions() -> None:
    result = diff("old.yaml", "new.yaml", "--json", "--at", "2027-07-01T13:00+02:00")
    printed = json.loads(result.output)
    assert (result.exit_code, printed["jobs"], printed["changed"]) == (1, 22, len(printed["changes"]))
    course = next(job for job in printed["changes"] if job["name"] == "course")
    assert course["at"] == "2027-07-01T11:00:00+00:00"
    assert (course["old"]["rule"], course["new"]["rule"]) == ("everyone", "students")
    assert (course["old"]["cap_w"], course["new"]["cap_w"]) == (300.0, 150.0)
    assert course["new"]["steps"][0] == "rule: rule 'students': cap 150 W (new.yaml:4)"
    assert printed["lower"] + printed["higher"] == printed["changed"]


def test_the_time_counts() -> None:
    assert diff("old.yaml", "night.yaml", "--at", "2027-07-01T03:00").exit_code == 0
    noon = diff("old.yaml", "night.yaml", "--at", "2027-07-01T12:00")
    assert noon.exit_code == 1
    assert noon.output.endswith("at 2027-07-01 12:00 UTC; at other times it may differ (--at)\n")


def test_the_settings_count() -> None:
    Path("s.yaml").write_text('gpus: {baseline: {"*H100*": 300W}}\nmode: observe\n')
    Path("jobs.yaml").write_text("- {name: a, gpu_model: H100}\n")
    Path("max.yaml").write_text("version: 1\ncaps: [{name: all, cap: 500W}]\n")
    assert diff("old.yaml", "max.yaml", "--jobs", "jobs.yaml").exit_code == 1
    assert diff("old.yaml", "max.yaml", "--jobs", "jobs.yaml", "--config", "s.yaml").exit_code == 0


def test_recorded_jobs_run_when_they_began() -> None:
    night, day = {"job_id": 1, "started_at": 1795572000}, {"job_id": 2, "started_at": 1795608000}
    Path("r.jsonl").write_text(records(night, day, day))
    result = diff("old.yaml", "night.yaml", "--jobs", "r.jsonl", "--json")
    assert json.loads(result.output)["jobs"] == 2
    assert changed(result) == {"2": (700.0, 350.0)}
    assert "1 of 2 jobs" in diff("old.yaml", "night.yaml", "--jobs", "r.jsonl").output
    everything = diff(
        "old.yaml", "night.yaml", "--jobs", "-", "--json", "--at", "2027-01-01T12:00", stdin=records(night, day)
    )
    assert set(changed(everything)) == {"1", "2"}


def test_recorded_jobs_ask_again_what_they_asked() -> None:
    Path("floor.yaml").write_text(OLD.replace("min: min", "min: 60%"))
    result = diff("old.yaml", "floor.yaml", "--jobs", "-", "--json", stdin=records({"asked": "300W"}))
    assert changed(result) == {"4711": (300.0, 420.0)}


def test_what_a_record_does_not_tell_is_not_guessed() -> None:
    result = diff("old.yaml", "new.yaml", "--jobs", "-", stdin=records({"qos": None}))
    assert result.exit_code == 1
    assert "200 W?" in result.output  # the students' 150 W, which an H100 does not take
    assert "1 of them hinge on what is not known of the job" in result.output


def test_a_qos_that_nobody_looked_up_is_not_known() -> None:
    Path("qos.yaml").write_text("version: 1\ncaps: [{name: urgent, when: {qos: urgent}, cap: 300W}]\n")
    result = diff("old.yaml", "qos.yaml", "--jobs", "-", "--json", stdin=records({"qos": None}))
    (job,) = json.loads(result.output)["changes"]
    assert (job["new"]["cap_w"], job["new"]["pending"]) == (300.0, ["qos"])
    assert diff("old.yaml", "qos.yaml", "--jobs", "-", stdin=records({"qos": "normal"})).exit_code == 0


def test_a_cap_that_is_no_longer_written_is_another() -> None:
    Path("observe.yaml").write_text(OLD.replace("name: everyone", "name: everyone, mode: observe"))
    result = diff("old.yaml", "observe.yaml", "--jobs", "-", stdin=records({}))
    assert result.exit_code == 1
    assert "700 W  700 W observed  everyone" in result.output


def test_a_run_on_two_models_is_two_questions() -> None:
    gpus = [{"model": "Tesla V100-SXM2-16GB"}, {"model": "NVIDIA H100 80GB HBM3"}, {"model": None}]
    Path("half.yaml").write_text("version: 1\ncaps: [{name: two, when: {gpus: 3}, cap: 50%}]\n")
    result = diff("old.yaml", "half.yaml", "--jobs", "-", "--json", stdin=records({"gpus": gpus}))
    models = [(job["gpu_model"], job["new"]["cap_w"]) for job in json.loads(result.output)["changes"]]
    assert models == [("Tesla V100-SXM2-16GB", 150.0), ("NVIDIA H100 80GB HBM3", 350.0)]


def test_models_without_known_limits_are_left_out_by_name() -> None:
    odd = {"job_id": 9, "gpus": [{"model": "Tesla K80"}]}
    result = diff("old.yaml", "new.yaml", "--jobs", "-", stdin=records({}, odd))
    assert result.exit_code == 0
    assert "left out: 9: no limits are known of the model 'Tesla K80'" in result.output
    assert diff("old.yaml", "new.yaml", "--jobs", "-", stdin=records(odd)).exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{]\n", "standard input:1: no end-of-job record of version 1: not a line of JSON"),
        ('{"v": 2}\n', "standard input:1: no end-of-job record of version 1: another version"),
        ('\n{"v": 1}\n', "standard input:2: no end-of-job record of version 1: 'cluster' is missing"),
        ("[1]\n", "standard input:1: [#1]: must be a mapping, not a text"),
        ("- {name: a}\n", "standard input:1: [#1]: 'gpu_model' is missing"),
        ("- {name: a, gpu_model: H100, gpu: 1}\n", "[#1].gpu: unknown key: did you mean 'gpus'?"),
        ("- {name: a, gpu_model: H100, gpus: -1}\n", "[#1].gpus: '-1' is no number"),
        ("- {name: a, gpu_model: H100}\n- {name: a, gpu_model: A100}\n", "the name 'a' is taken by an earlier job"),
        ("", "the file is empty"),
    ],
)
def test_mistakes_in_jobs_have_their_line(text: str, said: str) -> None:
    result = diff("old.yaml", "new.yaml", "--jobs", "-", stdin=text)
    assert result.exit_code == 2
    assert said in result.stderr


def test_users_text_is_escaped() -> None:
    evil = {"user": "a\x1b[2J", "qos": "normal", "asked": "9\x07W"}
    Path("half.yaml").write_text("version: 1\ncaps: [{name: half, cap: 50%}]\n")
    output = diff("old.yaml", "half.yaml", "--jobs", "-", stdin=records(evil)).output
    assert output.replace("\n", "").isprintable()


def test_the_examples_are_many_and_each_says_what_it_is() -> None:
    jobs = load_jobs(REPO / "policies/examples/jobs.yaml")
    assert len(jobs) >= 20
    assert all(job.note for job in jobs)
    for fields in ("user", "account", "partition", "qos", "comment", "constraint", "reservation", "node", "gpus"):
        assert len({getattr(job.job, fields) for job in jobs}) >= 2, fields
    assert len({job.gpu_model for job in jobs}) >= 4
