"""The ledger in memory: for a node whose disk fails, and for tests. It forgets when the process ends."""

from wattkeeper.errors import StoreError
from wattkeeper.ledger import schema
from wattkeeper.model import GpuUuid, Holding, JobKey, Watermark
from wattkeeper.protocols import Change, Kept
from wattkeeper.snapshot import AdminHold
from wattkeeper.units import Millijoules


class MemoryStore:
    """The ``Store`` without a file."""

    def __init__(self) -> None:
        self._boot_id: str | None = None
        self._at = 0.0
        self._holdings: dict[tuple[JobKey, GpuUuid], Holding] = {}
        self._over: dict[JobKey, float] = {}
        self._watermarks: dict[GpuUuid, Watermark] = {}
        self._job_energy: dict[tuple[JobKey, GpuUuid], tuple[Millijoules, float]] = {}
        self._idle: dict[GpuUuid, Millijoules] = {}
        self._unattributed: dict[GpuUuid, Millijoules] = {}
        self._holds: dict[GpuUuid, AdminHold] = {}
        self._closed = False

    def load(self) -> Kept:
        """What was kept, of jobs that hold something or were charged in the hour before the last commit."""
        self._check()
        holders = {key for key, _ in self._holdings}
        return Kept(
            boot_id=self._boot_id,
            holdings=tuple(self._holdings.values()),
            over=frozenset(self._over),
            watermarks=dict(self._watermarks),
            job_energy_mj={
                (key, gpu): energy
                for (key, gpu), (energy, last_at) in self._job_energy.items()
                if key in holders or last_at >= self._at - schema.RECENT_S
            },
            idle_mj=dict(self._idle),
            unattributed_mj=dict(self._unattributed),
            holds=dict(self._holds),
        )

    def commit(self, change: Change) -> None:
        """Take a change over."""
        self._check()
        self._boot_id, self._at = change.boot_id, change.at
        for holding in change.removed:
            self._holdings.pop((holding.job.key, holding.gpu), None)
        for holding in change.added:
            self._holdings.pop((holding.job.key, holding.gpu), None)  # the latest comes last
            self._holdings[holding.job.key, holding.gpu] = holding
        if change.over:
            self._end(change)
        for charges in change.charges:
            gpu = charges.gpu
            for key, energy in charges.jobs_mj.items():
                before, _ = self._job_energy.get((key, gpu), (0, 0.0))
                self._job_energy[key, gpu] = Millijoules(before + energy), change.at
            self._idle[gpu] = Millijoules(self._idle.get(gpu, 0) + charges.idle_mj)
            self._unattributed[gpu] = Millijoules(self._unattributed.get(gpu, 0) + charges.unattributed_mj)
        self._watermarks.update({watermark.sample.gpu: watermark for watermark in change.watermarks})
        for gpu, hold in change.holds.items():
            if hold is None:
                self._holds.pop(gpu, None)
            else:
                self._holds[gpu] = hold

    def close(self) -> None:
        """Nothing may follow."""
        self._closed = True

    def _end(self, change: Change) -> None:
        for key in change.over:
            self._over.setdefault(key, change.at)
        kept = [(key, at) for key, at in self._over.items() if at >= change.at - schema.OVER_KEPT_S]
        kept.sort(key=lambda entry: entry[1])  # stable: of two at the same time the later one stays
        self._over = dict(kept[-schema.OVER_KEPT :])

    def _check(self) -> None:
        if self._closed:
            raise StoreError("the ledger in memory has been closed; open a new one")
