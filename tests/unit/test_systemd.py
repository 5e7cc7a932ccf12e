"""The shipped units: systemd takes them, they are as closed as is claimed, and they fit what else is installed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.spec import REPO
from tests.lab.units import ACTUATOR, AGENT, FOLDER, SERVICES, SOCKETS, can_have_own_mounts, read_unit, unit_command

MOST_EXPOSURE = 2.0
UNITS = (*SERVICES, *SOCKETS)
SYSUSERS, TMPFILES = FOLDER / "wattkeeper.sysusers.conf", FOLDER / "wattkeeper.tmpfiles.conf"
INSTALL = REPO / "docs" / "install.md"
PROGRAMS = ("/opt/wattkeeper/bin/wattkeeper ", "/opt/wattkeeper/bin/python ")
SOMEBODY = 64_123
"""The uid of no user of this machine."""


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"not installed on this machine: {program}")


def run(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **more}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def rows(path: Path) -> list[list[str]]:
    """The words of each line that is not a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def comments(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The units with programs that this machine has."""
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8")
        for program in PROGRAMS:
            text = text.replace(f"ExecStart={program}", f"ExecStart={sys.executable} ")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return tmp_path


@needs("systemd-analyze")
def test_systemd_takes_every_unit(elsewhere: Path) -> None:
    units = [elsewhere / unit.name for unit in UNITS]
    done = run("systemd-analyze", "verify", "--man=no", *units, SYSTEMD_UNIT_PATH=f"{elsewhere}:")
    assert [line for line in done.stderr.splitlines() if "wattkeeper" in line] == []


@needs("systemd-analyze")
def test_how_exposed_the_services_are(capsys: pytest.CaptureFixture[str]) -> None:
    for unit in SERVICES:
        done = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
        found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
        assert found, done.stdout + done.stderr
        with capsys.disabled():
            print(f"\nsystemd-analyze security: {unit.name} {found[1]} (at most {MOST_EXPOSURE})")
        assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_each_capability_and_device_is_explained(path: Path) -> None:
    unit, said = read_unit(path), comments(path)
    for word in unit.words("CapabilityBoundingSet"):
        assert word in said
    for device in unit.values("DeviceAllow"):
        assert device.split()[0].removeprefix("char-") in said.replace("/", "-")


def test_what_each_process_is_allowed() -> None:
    agent, actuator = read_unit(AGENT), read_unit(ACTUATOR)
    assert (agent.get("User"), agent.words("CapabilityBoundingSet")) == ("wattkeeper", [])
    assert actuator.get("User") is None
    assert set(actuator.words("CapabilityBoundingSet")) == {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"}
    assert actuator.words("RestrictAddressFamilies") == ["AF_UNIX"]
    assert actuator.says("PrivateNetwork")
    assert actuator.words("ReadWritePaths") == []
    assert actuator.words("RuntimeDirectory") == ["wattkeeper/baseline"]
    assert actuator.says("RuntimeDirectoryPreserve")
    for unit in (agent, actuator):
        assert unit.get("ProtectSystem") == "strict"
        assert unit.says("NoNewPrivileges")
        assert unit.get("Type") == "notify"
        assert unit.get("WatchdogSec")
        assert "nvidia-persistenced.service" in unit.words("After")
        assert unit.words("Before") == ["slurmd.service"]


def test_users_and_folders_are_made() -> None:
    users = {row[1] for row in rows(SYSUSERS)}
    folders = {row[1] for row in rows(TMPFILES) if row[0] == "d"}
    for unit in map(read_unit, UNITS):
        for key in ("User", "Group", "SocketUser", "SocketGroup"):
            assert unit.get(key) in users | {None, "root"}, (unit.path.name, key)
        for path in unit.words("ReadWritePaths"):
            assert path in folders, (unit.path.name, path)
        for name in unit.words("RuntimeDirectory"):
            assert f"/run/{name}" in folders, (unit.path.name, name)
    for _, path, _, user, group, *_ in rows(TMPFILES):
        assert {user, group} <= users | {"root"}, path


def test_sockets_lead_to_their_services() -> None:
    sockets = [read_unit(path) for path in SOCKETS]
    folders = {row[1] for row in rows(TMPFILES) if row[0] == "d"}
    for service in map(read_unit, SERVICES):
        mine = {unit.path.name for unit in sockets if unit.service == service.path.name}
        assert set(service.words("Sockets")) == mine
    modes = {}
    for unit in sockets:
        path = Path(unit.get("ListenStream") or unit.get("ListenSequentialPacket") or "")
        assert str(path.parent) in folders
        modes[path.name] = (unit.get("FileDescriptorName"), unit.get("SocketUser"), unit.get("SocketMode"))
    assert modes == {
        "events.sock": ("events", "root", "0600"),
        "read.sock": ("read", "root", "0666"),
        "actuator.sock": ("actuator", "wattkeeper", "0600"),
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of several users")
@needs("systemd-tmpfiles")
@needs("systemd-sysusers")
def test_the_tree_is_made_and_kept(tmp_path: Path) -> None:
    """As `systemd-sysusers` and `systemd-tmpfiles --create` make it, on a machine that lies in a folder."""
    (tmp_path / "etc").mkdir()
    tree = tmp_path / "run" / "wattkeeper"
    for again in (False, True):
        for command in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
            done = run(*command, f"--root={tmp_path}", SYSUSERS if "sysusers" in command[0] else TMPFILES)
            assert done.returncode == 0, done.stderr
        if not again:
            (tree / "baseline" / "GPU-1.json").write_text("kept")
            (tree / "lock").write_text("123\n")
    group = int(re.findall(r"^wattkeeper:x:(\d+):", (tmp_path / "etc" / "group").read_text(), re.MULTILINE)[0])
    found = {path.relative_to(tree.parent).as_posix(): path.stat() for path in (tree, *tree.iterdir())}
    assert {name: (oct(at.st_mode & 0o7777), at.st_uid, at.st_gid) for name, at in found.items()} == {
        "wattkeeper": ("0o1775", 0, group),
        "wattkeeper/baseline": ("0o700", 0, 0),
        "wattkeeper/spool": ("0o2770", 0, group),
        "wattkeeper/lock": ("0o660", 0, group),
    }
    assert (tree / "baseline" / "GPU-1.json").read_text() == "kept"
    assert (tree / "lock").read_text() == "123\n"


def test_the_steps_by_hand_name_every_file() -> None:
    text = INSTALL.read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        assert f"systemd/{path.name}" in text, path.name


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """Two folders, `own` and `other`, in which every user may write."""
    with tempfile.TemporaryDirectory(prefix="wk-units-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        for name in ("own", "other"):
            (Path(folder) / name).mkdir()
            (Path(folder) / name).chmod(0o777)
        yield Path(folder)


LOOK = """
import json, os, socket, sys
def tried(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return os.strerror(error.errno)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
json.dump({
    "uids": set(status["Uid"].split()) == {str(os.getuid())} and os.getuid(),
    "groups": status["Groups"].split(),
    "capabilities": [status[key] for key in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")],
    "no_new_privileges": status["NoNewPrivs"],
    "write": [tried(open, path, "w") for path in sys.argv[1:]],
    "sockets": [tried(socket.socket, f) for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_PACKET)],
    "give away": tried(os.chown, sys.argv[1], 1, 1),
}, sys.stdout)
"""


@pytest.mark.skipif(not can_have_own_mounts(), reason="only root where mounts are allowed can make a tree read-only")
@needs("cc")
@needs("systemd-analyze")
@pytest.mark.parametrize(
    ("path", "user", "capabilities", "inet"),
    [
        (AGENT, SOMEBODY, 0, None),
        (ACTUATOR, None, 1 << 21 | 1 << 19 | 1 << 2, "Address family not supported by protocol"),
    ],
    ids=["agent", "actuator"],
)
def test_a_command_under_a_units_limits(
    path: Path, user: int | None, capabilities: int, inet: str | None, anybodys: Path
) -> None:
    """What the end-to-end tests run the two processes under is what the unit files say, as the kernel sees it."""
    own, other = anybodys / "own", anybodys / "other"
    prefix = unit_command(path, user=user, writable=[own])
    done = run(*prefix, sys.executable, "-I", "-S", "-c", LOOK, own / "a", other / "b", "/etc/wattkeeper-test")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    closed = "Read-only file system"
    assert found == {
        "uids": user or 0,
        "groups": [] if user else found["groups"],
        "capabilities": [f"{value:016x}" for value in (capabilities, capabilities, capabilities, 0, 0)],
        "no_new_privileges": "1",
        "write": [None, closed, closed],
        "sockets": [None, inet, "Address family not supported by protocol"],
        "give away": "Operation not permitted",
    }
    assert (own / "a").stat().st_mode & 0o777 == 0o600
