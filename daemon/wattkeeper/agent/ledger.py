"""Writing to the store from the loop, and going on without it when the disk fails."""

import logging
from collections import deque

from wattkeeper.errors import StoreError
from wattkeeper.privileged.errors import DeviceError
from wattkeeper.privileged.worker import DeviceThread
from wattkeeper.protocols import Change, Store

log = logging.getLogger("wattkeeper.ledger")

COMMIT_DEADLINE_S = 1.0
MOST_WAITING = 50_000


class LedgerWriter:
    """Commits changes in order in a thread of its own. A change that cannot be written waits for the next try."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = DeviceThread("ledger")
        self._waiting: deque[Change] = deque(maxlen=MOST_WAITING)
        self.trouble: str | None = None

    async def commit(self, change: Change) -> bool:
        """Write a change and all that waited before it; False where the disk failed and it now waits. Never raises."""
        self._waiting.append(change)
        try:
            await self._thread.run("commit", self._flush, COMMIT_DEADLINE_S)
        except (StoreError, DeviceError) as error:
            if self.trouble is None:
                log.error("the ledger cannot be written, going on in memory: %s", error)
            self.trouble = str(error)
            return False
        if self.trouble is not None:
            log.warning("the ledger is written again; nothing was lost")
            self.trouble = None
        return True

    def close(self) -> None:
        """Close the store; what still waits is tried once more."""
        try:
            self._flush()
        except StoreError as error:
            log.error("%d changes are lost with this process: %s", len(self._waiting), error)
        self._store.close()

    def _flush(self) -> None:
        # only this thread takes changes out, and only after they are written: a late return counts nothing twice
        while self._waiting:
            self._store.commit(self._waiting[0])
            self._waiting.popleft()
