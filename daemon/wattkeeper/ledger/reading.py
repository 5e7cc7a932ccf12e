"""The tables, read back."""

import sqlite3

from wattkeeper.ledger import schema
from wattkeeper.ledger import statements as sql
from wattkeeper.ledger.rows import facts_from_text, owners_from_text, usage_of
from wattkeeper.model import EnergySample, EnergySource, GpuUuid, Holding, JobKey, Sharing, Watermark
from wattkeeper.protocols import Kept
from wattkeeper.snapshot import AdminHold
from wattkeeper.units import Millijoules, Milliwatts


def read_kept(db: sqlite3.Connection) -> Kept:
    """What the ledger kept. Raises sqlite3.Error, and ValueError, KeyError or TypeError for rows without sense."""
    boot_id, at = db.execute(sql.SELECT_META).fetchone() or (None, 0.0)
    usage = {}
    for cluster, job_id, run, uuid, *figures in db.execute(sql.SELECT_USAGE, (at - schema.RECENT_S,)):
        usage[JobKey(cluster, job_id, run), GpuUuid(uuid)] = usage_of(*figures)
    accounts = db.execute(sql.SELECT_ACCOUNTS, (at - schema.ACCOUNT_S,)).fetchall()
    shown = {(account, partition) for account, partition, *_ in accounts}
    totals = db.execute(sql.SELECT_ALL_ACCOUNTS)
    gpu_energy = db.execute(sql.SELECT_GPU_ENERGY).fetchall()
    holds = db.execute(sql.SELECT_HOLDS)
    latest = db.execute(sql.SELECT_OVER, (schema.OVER_KEPT,)).fetchall()
    return Kept(
        boot_id=boot_id,
        holdings=tuple(_holdings(db)),
        over={JobKey(*names): float(at) for *names, at in reversed(latest)},
        watermarks={mark.sample.gpu: mark for mark in _watermarks(db)},
        usage=usage,
        accounts_mj={(account, partition): Millijoules(energy) for account, partition, energy, _ in accounts},
        accounts_at={(account, partition): last_at for account, partition, _, last_at in accounts},
        resting_mj={(name, part): Millijoules(energy) for name, part, energy in totals if (name, part) not in shown},
        idle_mj={GpuUuid(uuid): Millijoules(idle) for uuid, idle, _ in gpu_energy},
        unattributed_mj={GpuUuid(uuid): Millijoules(nobodys) for uuid, _, nobodys in gpu_energy},
        holds={GpuUuid(uuid): AdminHold(reason, since, until) for uuid, reason, since, until in holds},
    )


def _holdings(db: sqlite3.Connection) -> list[Holding]:
    found = []
    for cluster, job_id, run, uuid, facts, share, since_at, since_mono, slices in db.execute(sql.SELECT_HOLDINGS):
        job = facts_from_text(JobKey(cluster, job_id, run), facts)
        found.append(Holding(job, GpuUuid(uuid), Sharing(share), since_at, since_mono, slices))
    return found


def _watermarks(db: sqlite3.Connection) -> list[Watermark]:
    found = []
    for uuid, energy_mj, at, at_mono, boot_id, owners, source, power_mw, capped_ns in db.execute(sql.SELECT_WATERMARKS):
        power = None if power_mw is None else Milliwatts(power_mw)
        sample = EnergySample(
            GpuUuid(uuid), Millijoules(energy_mj), at, at_mono, boot_id, EnergySource(source), power, capped_ns
        )
        found.append(Watermark(sample, owners_from_text(owners)))
    return found
