"""The ledger's house work, in its thread: writing end-of-job records, forgetting what is old."""

import logging
from collections.abc import Callable, Mapping

from wattkeeper.errors import StoreError
from wattkeeper.ledger.records import Records
from wattkeeper.ledger.schema import PRUNED_AT_ONCE
from wattkeeper.model import JobKey
from wattkeeper.protocols import Clock, Store
from wattkeeper.system.failpoint import failpoint

log = logging.getLogger("wattkeeper.records")

RETRY_S = 10.0
PRUNE_EVERY_S = 86_400.0

PRUNE_FIRST_S = 3_600.0
"""Nothing is forgotten before the agent has run for so long: a clock that is wrong at boot is set right first."""


class RecordKeeper:
    """Writes the records of runs that have ended, and prunes once a day. Its methods but ``due`` are the thread's."""

    def __init__(self, records: Records, clock: Clock, keep_s: Callable[[], float]) -> None:
        """``keep_s``: for how many seconds jobs, days and files of records are kept."""
        self._records = records
        self._clock = clock
        self._keep_s = keep_s
        self._left = True  # a crash may have left some
        self._retry_mono = clock.mono()
        self._prune_mono = clock.mono() + PRUNE_FIRST_S
        self._unfit: Mapping[JobKey, str] = {}
        self._waiting: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why records are not written, all or some; None where all are."""
        unfit = self._unfit  # the thread's: it may be another one at any time
        if self._waiting is None and unfit:
            key, why = next(iter(unfit.items()))
            more = f" and {len(unfit) - 1} more" if len(unfit) > 1 else ""
            return f"no record can be made of job {key}{more} ({why}); please report this; all others are written"
        return self._waiting

    @property
    def due(self) -> bool:
        """True where there is something to do now."""
        now = self._clock.mono()
        return (self._left and now >= self._retry_mono) or now >= self._prune_mono

    def expect(self) -> None:
        """A run has ended."""
        self._left = True

    def keep_up(self, store: Store) -> None:
        """Write some records, or prune some: a commit that waits is not kept for long. Never raises."""
        now = self._clock.mono()
        try:
            if self._left and now >= self._retry_mono:
                self._write_some(store)
            elif now >= self._prune_mono:
                self._prune_some(store)
        except StoreError as error:
            self._retry_mono = now + RETRY_S
            self._prune_mono = max(self._prune_mono, self._retry_mono)
            if self._waiting is None:
                log.error("end-of-job records wait: %s", error)
            self._waiting = str(error)
        else:
            if self._waiting is not None:
                log.warning("end-of-job records are written again; none was lost")
            self._waiting = None

    def finish(self, store: Store) -> None:
        """Write all records that there are. Raises StoreError; those that are left are written at the next start."""
        while self._left:
            self._write_some(store)

    def _write_some(self, store: Store) -> None:
        self._left = False  # before asking: a run that ends from now on is not overlooked
        try:
            found = store.unrecorded()
            self._note_unfit(self._records.write(found))
            written = [key for record in found if (key := record.note.facts.key) not in self._unfit]
            if not written:
                return
            failpoint("records.noting")
            store.note_recorded(written)
        except StoreError:
            self._left = True
            raise
        except Exception as error:
            self._left = True
            if self._waiting is None:
                log.exception("end-of-job records cannot be written")
            raise StoreError(f"{error!r}; please report this") from error
        self._records.noted()
        self._left = True  # there may be more

    def _note_unfit(self, unfit: Mapping[JobKey, str]) -> None:
        for key in unfit.keys() - self._unfit.keys():
            log.error("job=%s no end-of-job record can be made of it (%s); please report this", key, unfit[key])
        self._unfit = unfit

    def _prune_some(self, store: Store) -> None:
        before_at = self._clock.wall() - self._keep_s()
        if store.prune(before_at) < PRUNED_AT_ONCE:
            self._records.prune(before_at)
            self._prune_mono = self._clock.mono() + PRUNE_EVERY_S
