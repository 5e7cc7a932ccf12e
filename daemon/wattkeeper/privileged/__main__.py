"""``python -m wattkeeper.privileged``: the actuator, the one part of Wattkeeper that is root. Of no use by hand."""

import argparse
import ctypes
import os
import pwd
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from wattkeeper.privileged.baselines import Baselines
from wattkeeper.privileged.limits import MOST, Limits
from wattkeeper.privileged.nvml import Nvml
from wattkeeper.privileged.server import Server, say

WAKE_S = 5.0
"""How often it says that it lives, when nobody asks; a quarter of what its unit allows (WatchdogSec=)."""

M_ARENA_MAX = -8
"""mallopt(3): one heap for all threads. What each would keep of its own is more than all the rest."""


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m wattkeeper.privileged", description=__doc__)
    words.add_argument("--run-dir", type=Path, required=True, help="holds baseline/")
    words.add_argument("--agent-user", required=True, help="name or uid of who may ask, besides root")
    words.add_argument("--library", help="a path to load instead of the system's libnvidia-ml.so.1")
    words.add_argument("--most", choices=MOST, default="baseline", help="the highest limit it will set [baseline]")
    given = words.parse_args()
    uid = int(given.agent_user) if given.agent_user.isdecimal() else pwd.getpwnam(given.agent_user).pw_uid
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    limits = Limits(Nvml(given.library), Baselines(given.run_dir / "baseline", boot_id), given.most)
    listener = given_socket()
    listener.settimeout(WAKE_S)
    threading.stack_size(256 * 1024)
    with suppress(AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    tell_systemd("READY=1")
    say(f"ready: for uid {uid}, limits up to the {given.most}")
    Server(limits, {0, uid}, say).serve(listener, lambda: tell_systemd("WATCHDOG=1"))


def given_socket() -> socket.socket:
    """The socket that systemd made and holds (sd_listen_fds(3)): who asks while we are away waits in it."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        sys.exit("actuator: no socket was handed over: start wattkeeper-actuator.socket")
    return socket.socket(fileno=3)


def tell_systemd(text: str) -> None:
    """sd_notify(3), where systemd asked to be told: else there is no such address."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.send(text.encode())


if __name__ == "__main__":
    main()
