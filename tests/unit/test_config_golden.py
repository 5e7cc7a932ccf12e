"""The words for what is wrong in a file, as people read them. WATTKEEPER_UPDATE_GOLDEN=1 writes them anew."""

import os
from pathlib import Path

import pytest

from wattkeeper.config.policy import load_policies
from wattkeeper.config.settings import load_settings
from wattkeeper.errors import ConfigError
from wattkeeper.system.trust import TO_READ

GOLDEN = Path(__file__).parent.parent / "golden"

BROKEN_FILES = {
    "aliases": b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "alias-meant-as-pattern": b"version: 1\ncaps:\n  - {name: a, when: {account: *ml}, cap: 60%}\n",
    "bom-and-crlf": b"\xef\xbb\xbfversion: 1\r\ncapz: []\r\n",
    "byte-order-marks-inside": "version: 1\n\ufeffcaps: []\n".encode(),
    "comment-only": b"# nothing yet\n",
    "comparison-without-quotes": b"version: 1\ncaps:\n  - {name: a, when: {gpus: >=2}, cap: 60%}\n",
    "comparison-without-quotes-in-block": b"version: 1\ncaps:\n  - name: a\n    when:\n      gpus: >=2\n    cap: 60%\n",
    "control-character": b"version: 1\ncaps: []\x1b[2J\n",
    "deep": b"version: 1\ncaps: " + b"[" * 100_000,
    "duplicate-keys": b"version: 1\nversion: 1\nidle: {cap: min, cap: max}\n",
    "empty": b"",
    "escaped-control-character": b'version: 1\ncaps: [{name: "a\\e[2Jb", cap: min}]\n',
    "key-is-a-list": b"version: 1\n[a, b]: c\n",
    "merge-key": b"version: 1\n<<: {caps: []}\n",
    "not-a-mapping": b"- version: 1\n",
    "not-utf-8": b"version: 1\n# caf\xe9\n",
    "nul": b"version: 1\n\x00",
    "pattern-without-quotes": b"version: 1\ncaps:\n  - name: a\n    when: {gpu_model: *V100*}\n    cap: 60%\n",
    "right-to-left": "version: 1\n# \u202eadmin\n".encode(),
    "tab": b"version: 1\nidle:\n\tcap: min\n",
    "tag": b"version: 1\ncaps: !!python/object/apply:os.system [reboot]\n",
    "too-big": b"#" * (1 << 20) + b"\n",
    "two-documents": b"version: 1\n---\nversion: 1\n",
    "unclosed": b"version: 1\ncaps: [{name: a\n",
}


def check(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("WATTKEEPER_UPDATE_GOLDEN") == "1":
        file.write_text(text)
    assert text == file.read_text()


def policy_errors(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_policies(Path(path), TO_READ)
    return f"{caught.value}\n"


def test_policy_of_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    check("policy-of-mistakes.txt", policy_errors("policy-of-mistakes.yaml"))


def test_settings_of_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    with pytest.raises(ConfigError) as caught:
        load_settings(Path("settings-of-mistakes.yaml"), TO_READ)
    check("settings-of-mistakes.txt", f"{caught.value}\n")


def test_broken_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    said = []
    for name, data in BROKEN_FILES.items():
        Path(f"{name}.yaml").write_bytes(data)
        said.append(policy_errors(f"{name}.yaml"))
    said.append(policy_errors("missing.yaml"))
    check("broken-files.txt", "".join(said))
