"""Writing to the store from the loop, and going on without it when the disk fails."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from wattkeeper.agent.records import RecordKeeper
from wattkeeper.agent.takeup import Known, with_gaps
from wattkeeper.errors import StoreError
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.ledger import schema
from wattkeeper.ledger.aside import SetAside, last_of
from wattkeeper.ledger.merge import merged
from wattkeeper.ledger.records import Records
from wattkeeper.ledger.store import SpentStoreError, SqliteStore, UnwritableError
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.protocols import Change, Clock, Kept, Store
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import Millijoules, format_energy

log = logging.getLogger("wattkeeper.ledger")

COMMIT_DEADLINE_S = 1.0
CLOSE_DEADLINE_S = 5.0
REOPEN_S = 60.0
"""A ledger that could not be opened, or that a damage has made useless, is opened anew after so long."""

QUIET_S = 600.0
"""Trouble that comes back is not told of again for so long; it stays an alarm."""

MOST_WAITING = 64
"""More changes that wait are merged into the last of them, up to ``MOST_CHARGES`` charges in each."""

MOST_CHARGES = 1_000

QUIET_WRITE_S = 10.0
"""What a quiet tick charges is on the disk after so long at the latest, or at the next tick. An event writes it too."""

ASIDE_TOLD_S = 86_400.0
"""A damaged ledger that was set aside is an alarm for so long, over restarts too."""

RECORDS = "records"


def open_ledger(
    folder: Path, clock: Clock, keep_s: Callable[[], float], tell: Callable[[str], object]
) -> "LedgerWriter":
    """The ledger in a folder. Where the disk will not have it, it is tried again later.

    ``keep_s``: for how many seconds jobs, days and records are kept. ``tell`` is given each end-of-job record.
    """

    def opened_anew() -> Store:
        return SqliteStore(folder / schema.FILE, clock.wall, check_all=True)

    def set_aside() -> SetAside | None:
        return last_of(folder / schema.FILE)

    keeper = RecordKeeper(Records(folder / RECORDS, tell), clock, keep_s)
    store, kept, trouble = None, Kept(known=False), None
    try:
        store = SqliteStore(folder / schema.FILE, clock.wall)
        kept = store.load()
    except StoreError as error:
        log.error("no ledger on disk, going on in memory: %s", error)
        store, trouble = None, str(error)
    return LedgerWriter(
        store, kept, clock=clock, reopen=opened_anew, keeper=keeper, set_aside=set_aside, trouble=trouble
    )


class LedgerWriter:
    """Commits changes in order in a thread of its own. A change that cannot be written waits for the next try.

    The thread also writes the end-of-job records of what it has committed; nobody waits for those.
    """

    def __init__(
        self,
        store: Store | None,
        kept: Kept | None = None,
        *,
        clock: Clock | None = None,
        reopen: Callable[[], Store] | None = None,
        keeper: RecordKeeper | None = None,
        set_aside: Callable[[], SetAside | None] = lambda: None,
        trouble: str | None = None,
    ) -> None:
        """``store`` None: it could not be opened because of ``trouble``. ``reopen`` gives it anew, or StoreError.

        ``set_aside``: the last damaged ledger that was moved out of the way.
        """
        self._store = store
        self._clock = clock or SystemClock()
        self._reopen = reopen
        self._keeper = keeper
        self._look_aside = set_aside
        self._aside = self._last_aside()
        self._thread = DeviceThread("ledger")
        self._lock = threading.Lock()
        self._waiting: deque[Change] = deque()
        self._writing: Change | None = None
        self._before: Change | None = None  # what brings a ledger that was opened anew to where the others begin
        self._known = Known(kept or Kept())
        self._following: Future[None] | None = None
        self._behind: Future[None] | None = None
        self._next_open_mono = self._clock.mono() + REOPEN_S
        self._next_quiet_mono = self._clock.mono()
        self._spent = False
        self._late: Kept | None = None
        self.kept = kept or Kept()
        """What the ledger kept from before this agent."""
        self.on_late: Callable[[Kept], None] | None = None
        """Called with that, from within a commit, where it could not be read at the start."""
        self._told = trouble is not None
        self._quiet_until_mono = self._clock.mono()
        self.trouble = trouble

    @property
    def alarm(self) -> str | None:
        """What is wrong with the ledger or its records, in words; None where nothing is."""
        if self.trouble is not None:
            return f"the ledger cannot be written, going on in memory: {self.trouble}"
        if self._keeper is not None and self._keeper.trouble is not None:
            return f"end-of-job records wait to be written: {self._keeper.trouble}"
        return None

    @property
    def aside_alarm(self) -> str | None:
        """That a damaged ledger was set aside within a day; None where none was."""
        if self._aside is None or self._clock.wall() - self._aside.at >= ASIDE_TOLD_S:
            return None
        return (
            f"the ledger was damaged and a fresh one begun: {self._aside.path} is the old one; "
            f"reports lack what it held, {RECORDS}/ beside it has the jobs that ended"
        )

    async def charge(self, change: Change) -> bool:
        """As ``commit``, but the change may wait for the next one: for ``QUIET_WRITE_S`` seconds at most. True if so.

        For energy alone. An agent that is killed meanwhile reads it from the counter again, for the same owners.
        """
        if self._clock.mono() >= self._next_quiet_mono:
            await self.commit(change)
            return False
        self._wait(change)
        return True

    async def commit(self, change: Change) -> bool:
        """Write a change and all that waited before it; False where the disk failed and it now waits. Never raises."""
        self._wait(change)
        if self._cannot_begin():
            return False
        self._next_quiet_mono = self._clock.mono() + QUIET_WRITE_S
        try:
            await self._thread.run("commit", self._flush, COMMIT_DEADLINE_S)
        except (StoreError, DeviceError) as error:
            self._failed(error)
            return False
        self._tell_late()
        if self.trouble is not None:
            self._recovered()
        self._follow_up()
        return True

    def close(self) -> None:
        """Close the store; what still waits is tried once more, and what is lost is told."""
        future: Future[None] = Future()
        self._thread.begin(self._finish, future)
        try:
            future.result(CLOSE_DEADLINE_S)
        except StoreError as error:
            log.error("the ledger was not closed well: %s", error)
        except TimeoutError:
            log.error("the ledger did not close in %g s: %s", CLOSE_DEADLINE_S, self._what_waits())

    def _wait(self, change: Change) -> None:
        with self._lock:
            self._known.see(change)
            last = self._waiting[-1] if len(self._waiting) >= MOST_WAITING else None
            if last is not None and len(last.charges) < MOST_CHARGES:
                self._waiting[-1] = merged(last, change)
            else:
                self._waiting.append(change)

    def _cannot_begin(self) -> bool:
        """True where the disk keeps the thread, or there is no ledger and it is not yet time to look again."""
        if self._thread.stalled or (self._behind is not None and not self._behind.done()):
            return True
        return self._store is None and self._clock.mono() < self._next_open_mono

    def _tell_late(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            self.kept = late
            if self.on_late is not None:
                self.on_late(late)

    def _recovered(self) -> None:
        if self._told:
            log.warning("the ledger is written again; nothing that waited was lost")
        self.trouble = None

    def _failed(self, error: StoreError | DeviceError) -> None:
        now = self._clock.mono()
        if self.trouble is None:
            self._next_open_mono = now + REOPEN_S
            self._told = now >= self._quiet_until_mono  # a disk on the brink fails and recovers at every other tick
        if self.trouble is None and self._told:
            log.error("the ledger cannot be written, going on in memory: %s", error)
            self._quiet_until_mono = now + QUIET_S
        self.trouble = str(error)
        self._spent = isinstance(error, SpentStoreError)
        self._behind = self._following

    def _follow_up(self) -> None:
        """Have the thread write records and forget what is old, unless it is about to."""
        if self._keeper is None or not self._keeper.due or (self._following and not self._following.done()):
            return
        self._following = Future()
        self._thread.begin(self._keep_up, self._following)

    # What follows runs in the thread.

    def _last_aside(self) -> SetAside | None:
        try:
            return self._look_aside()
        except OSError:
            return None

    def _keep_up(self) -> None:
        if self._store is not None and self._keeper is not None:
            self._keeper.keep_up(self._store)

    def _flush(self) -> None:
        # only this thread takes changes out, and forgets them only when they are written
        self._open_anew()
        while self._store is not None and (change := self._next()) is not None:
            self._put(self._store, change)
            self._written(change)

    def _put(self, store: Store, change: Change) -> None:
        """Write a change, without its charges or not at all where nothing else is of use. Raises StoreError."""
        for less in (change, replace(change, charges=(), watermarks=())):
            try:
                store.commit(less)
            except UnwritableError as error:
                log.error("lost for the ledger, %s: %s", _what_is_in(less), error)
            else:
                return

    def _next(self) -> Change | None:
        with self._lock:
            if self._before is not None:
                return self._before
            if self._writing is None and self._waiting:
                self._writing = self._waiting.popleft()
                while self._writing.is_energy_alone and self._waiting:
                    self._writing = merged(self._writing, self._waiting.popleft())
            return self._writing

    def _written(self, change: Change) -> None:
        with self._lock:
            if self._before is not None:
                self._before = None
            else:
                self._writing = None
            self._known.wrote(change)
        if self._keeper is not None and (change.over or any(note.ended_at is not None for note in change.notes)):
            self._keeper.expect()

    def _open_anew(self) -> None:
        """Open the ledger if there is none, or it has been of no use for long. Raises StoreError."""
        now = self._clock.mono()
        if self._reopen is None or (self._store is not None and (not self._spent or now < self._next_open_mono)):
            return
        self._next_open_mono, self._spent = now + REOPEN_S, False
        if self._store is not None:
            store, self._store = self._store, None
            store.close()
        store = self._reopen()
        kept = store.load()
        self._aside = self._last_aside()
        with self._lock:
            self._before = self._known.reconcile(kept, self._later())
            if not self.kept.known and self._late is None:
                self._late = with_gaps(kept, self._before.charges if self._before else ())
        self._store = store

    def _later(self) -> tuple[Change, ...]:
        return (*((self._writing,) if self._writing else ()), *self._waiting)

    def _finish(self) -> None:
        self._next_open_mono = self._clock.mono()
        try:
            try:
                self._flush()
            except SpentStoreError:
                self._next_open_mono, self._spent = self._clock.mono(), True
                self._flush()
            if self._store is not None and self._keeper is not None:
                self._keeper.finish(self._store)
        except StoreError as error:
            log.error("%s: %s", self._what_waits(), error)
        if self._store is not None:
            self._store.close()

    def _what_waits(self) -> str:
        """What is lost if it is never written, in words."""
        with self._lock:
            changes = self._later()
        return f"{len(changes)} changes with {_what_is_in(*changes)} are lost with this process"


def _what_is_in(*changes: Change) -> str:
    """The energy of jobs, and of how many, in words."""
    energy = [energy for change in changes for c in change.charges for energy in c.jobs_mj.values()]
    jobs = {key for change in changes for c in change.charges for key in c.jobs_mj}
    return f"{format_energy(Millijoules(sum(energy)))} of {len(jobs)} jobs"
