"""What systemd is told: sd_notify(3) datagrams. Does nothing where no service manager asked to be told."""

import contextlib
import os
import socket
import time


class ServiceManager:
    """Talks to the socket in ``NOTIFY_SOCKET``. Never raises: a service manager that is gone stops no capping."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        env = dict(os.environ) if environment is None else environment
        self._address = env.get("NOTIFY_SOCKET", "")
        self._watchdog_us = env.get("WATCHDOG_USEC", "")

    @property
    def watchdog_s(self) -> float | None:
        """How often to say WATCHDOG=1: half of what systemd allows, as sd_watchdog_enabled(3) advises."""
        return int(self._watchdog_us) / 2e6 if self._watchdog_us.isdecimal() and int(self._watchdog_us) else None

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """The time is CLOCK_MONOTONIC's, not that of ``Clock``: Type=notify-reload asks for it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect(address)
            channel.send(text.encode())
