"""From the tables of an earlier release to today's, step by step, with nothing lost."""

import sqlite3
from collections.abc import Callable

from wattkeeper.ledger import schema
from wattkeeper.ledger import statements as sql
from wattkeeper.ledger.rows import account_of, facts_from_text, key_row, local_day, summed, to_bits
from wattkeeper.model import EnergySource, JobKey


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Bring a file of ``version`` (0: empty) to ``schema.VERSION``, in one transaction.

    Raises sqlite3.Error, and ValueError, KeyError or TypeError for rows that make no sense; then nothing has changed.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        if version == 0:
            for statement in schema.TABLES:
                db.execute(statement)
        else:
            for step in _STEPS[version - 1 :]:
                step(db)
        db.execute(f"PRAGMA user_version = {schema.VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _one_to_two(db: sqlite3.Connection) -> None:
    """Jobs get tables of their own, energy is summed by day and account.

    Version 1 knew the energy of runs, and whose they were only while they held a GPU: what it summed goes to the day of
    its last charge, to an account without a name where none is known.
    """
    for statement in (
        "ALTER TABLE holdings ADD COLUMN slices INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE watermarks ADD COLUMN source TEXT NOT NULL DEFAULT 'counter'",
        "ALTER TABLE watermarks ADD COLUMN power_mw INTEGER",
        "ALTER TABLE watermarks ADD COLUMN capped_ns INTEGER",
        "ALTER TABLE job_energy RENAME TO old_energy",
        "DROP INDEX job_energy_last_at",
        schema.JOBS,
        schema.JOB_ENERGY,
        schema.DAYS,
        schema.GPU_DAYS,
        schema.ACCOUNTS,
        *schema.INDEXES,
    ):
        db.execute(statement)
    _fill_jobs(db)
    _fill_energy(db)
    db.execute("DROP TABLE old_energy")


def _fill_jobs(db: sqlite3.Connection) -> None:
    held = db.execute("SELECT cluster, job_id, run, facts, since_at FROM holdings").fetchall()
    for cluster, job_id, run, text, since_at in held:
        facts = facts_from_text(JobKey(cluster, job_id, run), text)
        row = (*key_row(facts.key), facts.uid, summed(facts.user), *account_of(facts), since_at, text)
        db.execute(sql.INSERT_HELD_JOB, row)


def _fill_energy(db: sqlite3.Connection) -> None:
    counter = to_bits(EnergySource, [EnergySource.COUNTER])
    select = """SELECT cluster, job_id, run, uuid, energy_mj, last_at, since_at
        FROM old_energy LEFT JOIN holdings USING (cluster, job_id, run, uuid)"""
    for cluster, job_id, run, uuid, energy_mj, last_at, since_at in db.execute(select).fetchall():
        key = (job_id, run, cluster)
        held_ns = 0 if since_at is None else max(0, round((last_at - since_at) * 1e9))
        db.execute(sql.ADD_JOB_ENERGY, (*key, uuid, energy_mj, last_at, held_ns, None, None, 0, counter))
        account, partition, user = db.execute(sql.SELECT_OWNER, key).fetchone() or ("", "", "")
        db.execute(sql.ADD_DAY, (local_day(last_at), account, partition, user, energy_mj, held_ns))
        db.execute(sql.ADD_ACCOUNT, (account, partition, energy_mj, last_at))
    (at,) = db.execute("SELECT at FROM meta").fetchone() or (0.0,)
    idle_mj, unattributed_mj = db.execute("SELECT sum(idle_mj), sum(unattributed_mj) FROM gpu_energy").fetchone()
    if idle_mj is not None:
        db.execute(sql.ADD_GPU_DAY, (local_day(at), idle_mj, unattributed_mj))


_STEPS: tuple[Callable[[sqlite3.Connection], None], ...] = (_one_to_two,)
"""The first brings version 1 to 2, and so on."""
