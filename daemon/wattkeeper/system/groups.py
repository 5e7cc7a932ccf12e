"""Which groups a user is in, as this node's user database (NSS: files, LDAP, sssd …) has it."""

import asyncio
import grp
import os
import pwd
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

from wattkeeper.model import UNKNOWN, Unknown
from wattkeeper.protocols import Clock

KEEP_S = 300.0


def groups_of(uid: int) -> frozenset[str]:
    """Names of all groups of a user, the primary one of the user database included. Blocks for as long as NSS does.

    Raises KeyError where NSS has no such user. It says so too while a directory server is away, which cannot be told
    apart. A group without a name is left out.
    """
    user = pwd.getpwuid(uid)
    names = set()
    for gid in os.getgrouplist(user.pw_name, user.pw_gid):
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return frozenset(names)


class Groups:
    """Asks NSS in a thread of its own, so that a directory server that hangs stops nobody else; keeps what it said.

    A user who left a group, or joined one, is known by it ``keep_s`` seconds later at most.
    """

    def __init__(self, clock: Clock, ask: Callable[[int], frozenset[str]] = groups_of, keep_s: float = KEEP_S) -> None:
        self._clock = clock
        self._ask = ask
        self._keep_s = keep_s
        self._known: dict[int, tuple[float, frozenset[str]]] = {}
        self._asked: dict[int, Future[frozenset[str]]] = {}
        self._queue: SimpleQueue[tuple[int, Future[frozenset[str]]]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def look_up(self, uid: int, deadline_s: float) -> frozenset[str] | Unknown:
        """A user's groups, by deadline in seconds; UNKNOWN where NSS is late, or knows no such user.

        (A user whom NSS does not know has a job here, so it is NSS that is in trouble: nothing follows from it.)
        A late answer is kept for who asks next.
        """
        now = self._clock.mono()
        for old, (at, _) in tuple(self._known.items()):
            if now - at > self._keep_s:
                self._known.pop(old, None)
        kept = self._known.get(uid)
        if kept is not None:
            return kept[1]
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(asyncio.wrap_future(self._begin(uid)))
        except (TimeoutError, KeyError, OSError):
            return UNKNOWN

    def _begin(self, uid: int) -> "Future[frozenset[str]]":
        """The question to NSS that is under way for a user, or a new one."""
        if uid in self._asked:
            return self._asked[uid]
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="groups", daemon=True)
            self._thread.start()
        future: Future[frozenset[str]] = Future()
        future.set_running_or_notify_cancel()  # who waits for it may give up; it goes on
        self._asked[uid] = future
        self._queue.put((uid, future))
        return future

    def _serve(self) -> None:
        while True:
            uid, future = self._queue.get()
            try:
                found = self._ask(uid)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the answer
                self._asked.pop(uid, None)
                future.set_exception(error)
            else:
                self._known[uid] = (self._clock.mono(), found)
                self._asked.pop(uid, None)
                future.set_result(found)
