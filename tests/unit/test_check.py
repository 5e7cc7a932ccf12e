"""`wattkeeper check`: every problem on its line, and an exit code to build on."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from wattkeeper.cli.check import check

GOOD = "version: 1\ncaps: [{name: everyone, cap: baseline}]\n"
DOUBTFUL = 'version: 1\nprofiles: {x: {cap: [{model: "*V100*", cap: 500W}]}}\n'
BAD = "version: 1\ncaps: [{name: everyone, cap: basline}]\nidle: 3\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(check, list(arguments))


def test_a_good_policy() -> None:
    Path("p.yaml").write_text(GOOD)
    result = run("p.yaml")
    assert (result.exit_code, result.output) == (0, "p.yaml: fine: policy of 1 rule, 0 ceilings, 0 profiles\n")


def test_every_problem_has_its_line() -> None:
    Path("p.yaml").write_text(BAD)
    result = run("p.yaml")
    assert result.exit_code == 1
    first, second, total = result.output.splitlines()
    assert first.startswith("p.yaml:2: caps[everyone].cap: unknown profile 'basline'")
    assert second.startswith("p.yaml:3: idle: must be a mapping, not a text")
    assert total == "2 errors, 0 warnings"


def test_warnings_exit_0_unless_they_are_strict() -> None:
    Path("p.yaml").write_text(DOUBTFUL)
    result = run("p.yaml")
    assert result.exit_code == 0
    assert result.output.startswith("p.yaml:2: warning: profiles.x.cap: 500 W is outside")
    assert result.output.endswith("0 errors, 1 warning\n")
    assert run("-W", "p.yaml").exit_code == run("--strict-warnings", "p.yaml").exit_code == 1


def test_a_web_config_is_checked_with_the_settings_that_name_it(tmp_path: Path) -> None:
    web, settings = tmp_path / "web.yaml", tmp_path / "s.yaml"
    (tmp_path / "p.yaml").write_text(GOOD)
    settings.write_text(f"policies: {tmp_path}/p.yaml\nmetrics: {{web_config: {web}}}\n")
    web.write_text("tls_server_config:\n  cert_file: c.pem\n  key_file: k.pem\n")
    result = run("--config", str(settings))
    assert result.exit_code == 1
    assert f"{web}:2: tls_server_config.cert_file: {tmp_path}/c.pem cannot be read: No such file" in result.output
    result = run(str(web))
    assert (result.exit_code, result.output) == (0, f"{web}: fine: web config, TLS\n")
    web.write_text("http_server_config: {http2: true}\n")
    result = run("--config", str(settings))
    assert result.exit_code == 0
    assert result.output.startswith(f"{web}:1: warning: http_server_config.http2: has no effect")
    assert f"{web}: fine: web config, which keeps nobody out\n" in result.output


def test_tells_settings_from_policies_and_folders() -> None:
    Path("s.yaml").write_text("mode: observe\n")
    Path("d").mkdir()
    Path("d/a.yaml").write_text(GOOD)
    result = run("s.yaml", "d")
    assert result.exit_code == 0
    assert result.output == (
        "s.yaml: fine: settings, mode observe\nd: fine: policy of 1 rule, 0 ceilings, 0 profiles\n"
    )


def test_refuses_what_is_neither() -> None:
    Path("x.yaml").write_text("a: b\n")
    result = run("x.yaml", "missing.yaml")
    assert result.exit_code == 1
    assert "x.yaml:1: neither a policy nor settings" in result.output
    assert "missing.yaml: cannot be read: No such file or directory" in result.output


def test_without_files_checks_the_settings_and_their_policies(tmp_path: Path) -> None:
    Path("s.yaml").write_text(f"policies: {tmp_path}/p.yaml\n")
    Path("p.yaml").write_text(BAD)
    result = run("--config", "s.yaml")
    assert result.exit_code == 1
    assert f"{tmp_path}/p.yaml:2: caps[everyone].cap" in result.output
    assert "s.yaml: fine: settings, mode enforce" in result.output
    Path("p.yaml").write_text(GOOD)
    assert run("--config", "s.yaml").exit_code == 0
    Path("s.yaml").write_text("mode: none\n")
    assert run("--config", "s.yaml").exit_code == 1


def test_json() -> None:
    Path("p.yaml").write_text(BAD)
    Path("q.yaml").write_text(DOUBTFUL)
    result = run("--json", "p.yaml", "q.yaml")
    assert result.exit_code == 1
    printed = json.loads(result.output)
    assert (printed["ok"], printed["errors"], printed["warnings"]) == (False, 2, 1)
    assert printed["files"][1] == {"file": "q.yaml", "kind": "policy", "ok": True}
    assert [(p["file"], p["line"], p["path"], p["severity"]) for p in printed["problems"]] == [
        ("p.yaml", 2, "caps[everyone].cap", "error"),
        ("p.yaml", 3, "idle", "error"),
        ("q.yaml", 2, "profiles.x.cap", "warning"),
    ]


def test_wrong_use() -> None:
    assert run("--config", "a", "b").exit_code == 2
    assert run("--nonsense").exit_code == 2


def test_help_teaches() -> None:
    output = run("--help").output
    assert "Examples:" in output
    assert "Exit codes:" in output


def test_a_policy_that_others_can_change_is_an_error_like_others() -> None:
    Path("p.yaml").write_text(GOOD)
    Path("p.yaml").chmod(0o646)
    Path("s.yaml").write_text(f"policies: {Path.cwd()}/p.yaml\n")
    for arguments, name in ((["p.yaml"], "p.yaml"), (["--config", "s.yaml"], f"{Path.cwd()}/p.yaml")):
        result = run(*arguments)
        assert result.exit_code == 1
        line = f"{name}: lets everybody write to it (mode 0646): chmod o-w {name}"
        assert line in result.output.splitlines()
        assert result.output.endswith("1 error, 0 warnings\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_draft_may_be_anybodys_and_what_is_installed_may_not() -> None:
    Path("p.yaml").write_text(GOOD)
    os.chown("p.yaml", 12_345, -1)
    Path("s.yaml").write_text(f"policies: {Path.cwd()}/p.yaml\n")
    assert run("p.yaml").exit_code == 0
    result = run("--config", "s.yaml")
    assert result.exit_code == 1
    assert f"{Path.cwd()}/p.yaml: belongs to uid 12345, not to root: chown root {Path.cwd()}/p.yaml" in result.output
