"""The shipped systemd units: what they say, and commands run under the limits that they set.

``unit_command`` applies User=, Group=, CapabilityBoundingSet=, NoNewPrivileges=, UMask=, SystemCallFilter=,
RestrictAddressFamilies=, MemoryDenyWriteExecute=, and as root, where the machine allows mounts (some containers do
not), ProtectSystem=strict and PrivateNetwork=. It leaves out
what needs systemd or its control groups: DevicePolicy=, IPAddressDeny=, PrivateTmp=, and the settings of seccomp other
than the two named.
"""

import json
import os
import platform
import pwd
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.lab.processes import LabError, program
from tests.lab.spec import REPO

FOLDER = REPO / "systemd"
AGENT, ACTUATOR = FOLDER / "wattkeeper.service", FOLDER / "wattkeeper-actuator.service"
SERVICES = (AGENT, ACTUATOR)
SOCKETS = tuple(sorted(FOLDER.glob("*.socket")))

_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@dataclass(frozen=True)
class Unit:
    """A unit file. ``lines``: section, key and value of every line, in order, comments left out."""

    path: Path
    lines: tuple[tuple[str, str, str], ...]

    def words(self, key: str) -> list[str]:
        """All words of a key that may be given several times; an empty one begins anew (systemd.syntax(7))."""
        found: list[str] = []
        for _, name, value in self.lines:
            if name == key:
                found = [*found, *value.split()] if value else []
        return found

    def values(self, key: str) -> list[str]:
        """What each line of a key says."""
        return [value for _, name, value in self.lines if name == key]

    def get(self, key: str) -> str | None:
        """The last value of a key."""
        return next(reversed(self.values(key)), None)

    @property
    def service(self) -> str:
        """The service that a socket unit leads to."""
        return self.get("Service") or self.path.with_suffix(".service").name

    def says(self, key: str) -> bool:
        return self.get(key) in ("yes", "true", "on", "1")

    def has(self, key: str) -> bool:
        return self.get(key) is not None


def read_unit(path: Path) -> Unit:
    lines, section = [], ""
    text = re.sub(r"^[#;].*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("["):
            section = line[1:-1]
        else:
            key, _, value = line.partition("=")
            lines.append((section, key.strip(), value.strip()))
    return Unit(path, tuple(lines))


def unit_command(
    unit: Path,
    *,
    user: int | None = None,
    writable: Sequence[Path] | None = None,
    sockets: Mapping[str, int] | None = None,
) -> list[str]:
    """What to put before a command, so that it runs as the unit says.

    ``user``: the uid, and gid, that stands for User=; None: User= itself, where this machine has it.
    ``writable``: what stands for the unit's own folders; None leaves the tree as it is. ``sockets``: descriptors by
    name, handed over as systemd does; whoever starts the command must pass them on (``pass_fds``). Where the caller is
    not root, what only root can do is left out. Raises LabError where this machine lacks something.
    """
    said = read_unit(unit)
    plan: dict[str, object] = {
        "umask": int(said.get("UMask") or "022", 8),
        "no_new_privileges": said.says("NoNewPrivileges"),
        "no_writable_code": said.says("MemoryDenyWriteExecute"),
        "calls": _allowed_calls(tuple(said.values("SystemCallFilter"))),
        "families": [int(getattr(socket, family)) for family in said.words("RestrictAddressFamilies")],
        "socket_call": call_numbers()["socket"],
        "arch": _ARCH[platform.machine()],
        "sockets": dict(sockets or {}),
    }
    if os.geteuid() == 0:
        plan |= _as_root(said, user, writable)
    return _confined(plan)


def socket_command(sockets: Mapping[str, int]) -> list[str]:
    """What to put before a command that is given these descriptors, by name, as systemd does, and is otherwise free."""
    return _confined({"sockets": dict(sockets)})


def _confined(plan: Mapping[str, object]) -> list[str]:
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("confine.py")), json.dumps(plan)]


@cache
def can_have_own_mounts() -> bool:
    """Whether this machine lets us make a mount namespace: as root, and not in a container that forbids it."""
    plan: dict[str, object] = {"private_network": True, "writable": None, "ways": []}
    return os.geteuid() == 0 and subprocess.run([*_confined(plan), "true"], capture_output=True).returncode == 0


def others_reach(*trees: str | Path) -> bool:
    """Whether every user may go to these folders."""
    paths = [Path(tree).resolve() for tree in trees]
    return all(folder.stat().st_mode & 0o001 for path in paths for folder in (path, *path.parents))


def _trees() -> tuple[str | Path, ...]:
    """What any program of ours needs: the interpreter, its packages and this repository."""
    return sys.base_prefix, sys.prefix, REPO


def can_be_another_user() -> bool:
    """Whether we can start programs of ours as a user of no account."""
    return os.geteuid() == 0 and (can_have_own_mounts() or others_reach(*_trees()))


def _as_root(said: Unit, user: int | None, writable: Sequence[Path] | None) -> dict[str, object]:
    strict = writable is not None and said.get("ProtectSystem") == "strict"
    plan: dict[str, object] = {}
    if can_have_own_mounts():
        plan |= {
            "private_network": said.says("PrivateNetwork"),
            "writable": [str(path) for path in writable or ()] if strict else None,
            "ways": [],
        }
    if said.has("CapabilityBoundingSet"):
        names = _capabilities()
        plan["bounding_set"] = [names[name.lower()] for name in said.words("CapabilityBoundingSet")]
        plan["last_capability"] = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    name = said.get("User")
    if user is None and name is not None:
        try:
            plan |= {"uid": pwd.getpwnam(name).pw_uid, "gid": pwd.getpwnam(name).pw_gid}
        except KeyError:
            raise LabError(f"this machine has no user {name}: say which uid stands for it") from None
    elif user is not None:
        plan |= {"uid": user, "gid": user}
    if "uid" in plan and "ways" in plan:
        plan["ways"] = sorted({str(Path(tree).resolve()) for tree in _trees()})
    return plan


@cache
def call_numbers() -> dict[str, int]:
    """The numbers of this machine's system calls, by the C compiler's word."""
    source = "#include <sys/syscall.h>\n"
    done = subprocess.run([program("cc"), "-E", "-dM", "-"], input=source, capture_output=True, text=True, timeout=60)
    return {found[1]: int(found[2]) for found in re.finditer(r"#define __NR_(\w+) (\d+)\n", done.stdout)}


@cache
def _allowed_calls(lines: tuple[str, ...]) -> list[int]:
    """SystemCallFilter=: what its lines allow, less what those that begin with ~ take away. Empty: everything."""
    allowed: set[str] = set()
    for line in lines:
        named = {name for word in line.removeprefix("~").split() for name in _calls_of(word)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    numbers = call_numbers()
    return sorted(numbers[name] for name in allowed if name in numbers)


def _calls_of(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    done = subprocess.run(
        [program("systemd-analyze"), "syscall-filter", word], capture_output=True, text=True, timeout=60
    )
    lines = [line.strip() for line in done.stdout.splitlines()[1:]]
    return {name for line in lines if line and not line.startswith("#") for name in _calls_of(line)}


@cache
def _capabilities() -> dict[str, int]:
    done = subprocess.run([program("systemd-analyze"), "capability"], capture_output=True, text=True, timeout=60)
    return {
        row[0]: int(row[1]) for line in done.stdout.splitlines() if len(row := line.split()) == 2 and row[1].isdigit()
    }
