"""Does to a command what a unit's sandbox settings do: ``python -I -S confine.py PLAN COMMAND …``, PLAN in JSON.

Standard library only, and as few modules as can be: it is run as a plain script before every confined program. What
needs root (mounts, network, capabilities, another user) is in the plan only where the caller is root.
"""

import ctypes
import json
import os
import struct
import sys
from collections.abc import Sequence
from typing import Any

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_BIND, MS_REC, MS_SLAVE = 1 << 12, 1 << 14, 1 << 19
SYS_MOUNT_SETATTR, MOUNT_ATTR_RDONLY, AT_RECURSIVE = 442, 1, 0x8000
PR_CAPBSET_DROP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 24, 22, 38, 65
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL_WITH = 0x7FFF0000, 0x00050000
EPERM, EAFNOSUPPORT = 1, 97

_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"confine: {what}: {os.strerror(ctypes.get_errno())}")


def _open_ways(trees: Sequence[str]) -> None:
    """Lets another user reach these folders, where one above them is closed to others: Python may lie in /root.

    In place of each closed folder stands an empty one with the way to them. They themselves are as they were.
    """
    held: dict[str, list[tuple[str, int]]] = {}
    for tree in trees:
        parts = tree.split("/")
        above = ["/".join(parts[:length]) for length in range(2, len(parts))]
        closed = next((folder for folder in above if not os.stat(folder).st_mode & 0o001), None)  # noqa: PTH116
        if closed is not None:
            held.setdefault(closed, []).append((tree, os.open(tree, os.O_PATH)))
    for closed, ways in held.items():
        _must(_libc.mount(b"none", closed.encode(), b"tmpfs", 0, b"mode=755"), closed)
        for tree, number in ways:
            os.makedirs(tree, exist_ok=True)  # noqa: PTH103
            _must(_libc.mount(b"/proc/self/fd/%d" % number, tree.encode(), None, MS_BIND | MS_REC, None), tree)
            os.close(number)


def _make_read_only(writable: Sequence[str]) -> None:
    """ProtectSystem=strict: all of the tree but /dev, /proc and these paths. /sys is closed by other settings."""
    for path in writable:
        _must(_libc.mount(path.encode(), path.encode(), None, MS_BIND | MS_REC, None), path)
    _set_mount("/", MOUNT_ATTR_RDONLY, 0)
    for path in ("/dev", "/proc", *writable):
        _set_mount(path, 0, MOUNT_ATTR_RDONLY)


def _set_mount(path: str, set_: int, clear: int) -> None:
    attributes = struct.pack("QQQQ", set_, clear, 0, 0)
    done = _libc.syscall(SYS_MOUNT_SETATTR, -1, path.encode(), AT_RECURSIVE, attributes, len(attributes))
    _must(done, f"mount_setattr {path}")


def _filter(calls: Sequence[int], socket_call: int, families: Sequence[int], arch: int) -> bytes:
    """The program for seccomp(2): these calls and no others, and socket(2) for these families only."""
    ask = [(LOAD, 0, 0, 16)]  # the first argument's lower half
    for family in families:
        ask += [(IF_EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    ask.append((RETURN, 0, 0, FAIL_WITH | EAFNOSUPPORT))
    lines = [(LOAD, 0, 0, 4), (IF_EQUAL, 1, 0, arch), (RETURN, 0, 0, FAIL_WITH | EPERM), (LOAD, 0, 0, 0)]
    lines += [(IF_EQUAL, 0, len(ask), socket_call), *ask]
    for call in calls:
        lines += [(IF_EQUAL, 0, 1, call), (RETURN, 0, 0, ALLOW)]
    lines.append((RETURN, 0, 0, FAIL_WITH | EPERM))
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def _install(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    _must(_libc.prctl(PR_SET_SECCOMP, 2, head, 0, 0), "seccomp")


def _hand_over(sockets: dict[str, int]) -> None:
    """What systemd does with a socket's descriptor: 3, 4 …, and their names (sd_listen_fds(3))."""
    high = [os.dup2(number, 200 + at) for at, number in enumerate(sockets.values())]
    for at, number in enumerate(high):
        os.dup2(number, 3 + at, inheritable=True)
        os.close(number)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(high)), "LISTEN_FDNAMES": ":".join(sockets)}


def _drop(plan: dict[str, Any]) -> None:
    if "bounding_set" in plan:
        for capability in range(int(plan["last_capability"]) + 1):
            if capability not in plan["bounding_set"]:
                _must(_libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), f"capability {capability}")
    if "uid" in plan:
        os.setgroups([])
        os.setresgid(*[plan["gid"]] * 3)
        os.setresuid(*[plan["uid"]] * 3)
    if plan.get("no_new_privileges"):
        _must(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "NoNewPrivileges")


def main(plan: dict[str, Any], command: list[str]) -> None:
    if "ways" in plan:
        _must(_libc.unshare(CLONE_NEWNS | (CLONE_NEWNET if plan["private_network"] else 0)), "unshare")
        _must(_libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None), "mounts of our own")
        _open_ways(plan["ways"])
        if plan["writable"] is not None:
            _make_read_only(plan["writable"])
    if "umask" in plan:
        os.umask(plan["umask"])
    if plan.get("sockets"):
        _hand_over(plan["sockets"])
    _drop(plan)
    if plan.get("no_writable_code"):
        _libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)  # Linux 6.3; systemd does the same by seccomp on older ones
    if plan.get("calls"):
        _install(_filter(plan["calls"], plan["socket_call"], plan["families"], plan["arch"]))
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
