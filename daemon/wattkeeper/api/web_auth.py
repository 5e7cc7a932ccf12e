"""Passwords of ``basic_auth_users``: checked one at a time in one thread, each right one once.

bcrypt is slow on purpose, so whoever may make the agent run it may make it busy. Three bounds keep that small: one
thread, which gives way to everything else on the node; a short queue, of which one address gets a part; and a note of
the credential that was right, so that a scraper costs one check and not one per scrape.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from wattkeeper.errors import ConfigError, Problem

MOST_WAITING = 16
"""At a cost of 10 this is a second of checks: within a scrape's timeout."""

MOST_WAITING_OF_ONE = 8
"""The part of the queue that one address may fill."""

_BCRYPT_BYTES = 72
"""bcrypt looks at no more of a password; what follows never counted for anybody's hash."""


def need_bcrypt(file: Path) -> None:
    """Raises ``ConfigError`` where the package that checks passwords is not installed."""
    try:
        import bcrypt  # noqa: F401 - only agents that ask for passwords pay for it
    except ImportError as error:
        text = f"needs the Python package bcrypt, which cannot be imported: {error}"
        raise ConfigError((Problem(str(file), 0, "basic_auth_users", text),)) from None


def credentials_in(header: str) -> tuple[str, bytes] | None:
    """User and password of an ``Authorization`` header (RFC 7617); None where it holds none."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        plain = base64.b64decode(rest.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = plain.partition(b":")
    return (user.decode(errors="surrogateescape"), password) if colon else None


class Passwords:
    """Says whose password is right. ``checks``: how often bcrypt was run."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._right: dict[str, bytes] = {}
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._of_client: Counter[str] = Counter()
        self._thread: ThreadPoolExecutor | None = None
        self.checks = 0

    async def right(self, users: Mapping[str, str], user: str, password: bytes, client: str) -> bool | None:
        """True or False, or None where too much waits to be checked. ``users``: names and their hashes.

        A name that is not there costs what one that is there does, and both end in the same answer.
        """
        password = password[:_BCRYPT_BYTES]
        known = user in users
        stored = users[user] if known else self._decoy(users, user)
        digest = self._digest(user, stored, password)
        if known and hmac.compare_digest(self._right.get(user, b""), digest):
            return True
        running = self._running.get(digest)
        if running is None:
            if len(self._running) >= MOST_WAITING or self._of_client[client] >= MOST_WAITING_OF_ONE:
                return None
            running = self._begin(digest, stored, password, client)
        found = await asyncio.shield(running) and known
        if found:
            self._right = {name: kept for name, kept in self._right.items() if name in users} | {user: digest}
        return found

    def close(self) -> None:
        """Let go of the thread; a check under way ends by itself, within a second or two."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self, digest: bytes, stored: str, password: bytes, client: str) -> asyncio.Future[bool]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "password", initializer=_give_way)
        running = asyncio.get_running_loop().run_in_executor(self._thread, _check, password, stored)
        self._running[digest] = running
        self._of_client[client] += 1
        self.checks += 1

        def done(_: asyncio.Future[bool]) -> None:
            del self._running[digest]
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]

        running.add_done_callback(done)
        return running

    def _decoy(self, users: Mapping[str, str], user: str) -> str:
        """A hash that nothing fits, of the same cost as some user's: always the same one for this name."""
        costs = sorted(stored[:7] for stored in users.values())
        chosen = int.from_bytes(self._digest(user, "", b"")[:8]) % len(costs)
        return f"{costs[chosen]}{'.' * 53}"

    def _digest(self, user: str, stored: str, password: bytes) -> bytes:
        """Stands for a credential. Keyed anew in each process: it tells nothing to who finds it in a core file."""
        parts = (user.encode(errors="surrogateescape"), stored.encode(), password)
        together = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hashlib.blake2b(together, key=self._key, digest_size=32).digest()


def _give_way() -> None:
    """This thread gets what nobody else on the node wants."""
    with suppress(OSError):  # the filter of system calls may not let it: then it is as important as the others
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _check(password: bytes, stored: str) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password, stored.encode())
    except ValueError:  # a salt that is none: nothing fits
        return False
