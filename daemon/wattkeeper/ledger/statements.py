"""The SQL that writes and reads the tables of ``schema.py``. ``KEY`` is a run: its job id, run and cluster."""

KEY = "job_id = ? AND run = ? AND cluster = ?"

UPSERT_META = (
    "INSERT INTO meta VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET boot_id = excluded.boot_id, at = excluded.at"
)
DELETE_HOLDING = f"DELETE FROM holdings WHERE {KEY} AND uuid = ?"  # noqa: S608 - nothing here is from outside
UPSERT_HOLDING = "INSERT OR REPLACE INTO holdings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
UPSERT_OVER = """INSERT INTO over (job_id, run, cluster, at) VALUES (?, ?, ?, ?)
    ON CONFLICT (job_id, run, cluster) DO UPDATE SET at = max(at, excluded.at)"""
PRUNE_OVER_BY_AGE = "DELETE FROM over WHERE at < ?"
PRUNE_OVER_BY_COUNT = (
    "DELETE FROM over WHERE rowid IN (SELECT rowid FROM over ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)"
)
UPSERT_WATERMARK = "INSERT OR REPLACE INTO watermarks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
UPSERT_HOLD = "INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?)"
DELETE_HOLD = "DELETE FROM holds WHERE uuid = ?"

_REUSED = f"SELECT 1 FROM jobs WHERE {KEY} AND recorded = 1 AND ended_at < ?"  # noqa: S608
DELETE_REUSED_ENERGY = f"DELETE FROM job_energy WHERE {KEY} AND EXISTS ({_REUSED})"  # noqa: S608
DELETE_REUSED = f"DELETE FROM jobs WHERE {KEY} AND recorded = 1 AND ended_at < ?"  # noqa: S608
"""A recorded run that ended before another of its name begins: a cluster that was set up anew counts from 1 again."""

INSERT_HELD_JOB = """INSERT OR IGNORE INTO jobs
    (job_id, run, cluster, uid, user, account, partition, started_at, ended_at, day, asked, outcome, rule, facts)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, 'none', NULL, ?)"""
UPSERT_JOB = """INSERT INTO jobs
    (job_id, run, cluster, uid, user, account, partition, started_at, ended_at, day, asked, outcome, rule, facts)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (job_id, run, cluster) DO UPDATE SET
        uid = excluded.uid, user = excluded.user, account = excluded.account, partition = excluded.partition,
        started_at = excluded.started_at, asked = excluded.asked, outcome = excluded.outcome, rule = excluded.rule,
        facts = excluded.facts, ended_at = coalesce(ended_at, excluded.ended_at), day = coalesce(day, excluded.day)
    WHERE recorded = 0"""
UPSERT_JOB_GPU = """INSERT INTO job_energy (job_id, run, cluster, uuid, last_at, minor, model, cap_mw)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (job_id, run, cluster, uuid)
    DO UPDATE SET minor = excluded.minor, model = excluded.model, cap_mw = coalesce(excluded.cap_mw, cap_mw)"""
TOUCH_ACCOUNT = """INSERT INTO accounts VALUES (?, ?, 0, ?)
    ON CONFLICT (account, partition) DO UPDATE SET last_at = max(last_at, excluded.last_at)"""

ADD_JOB_ENERGY = """INSERT INTO job_energy
    (job_id, run, cluster, uuid, energy_mj, last_at, held_ns, capped_ns, peak_mw, bases, sources)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (job_id, run, cluster, uuid) DO UPDATE SET
        energy_mj = energy_mj + excluded.energy_mj, last_at = excluded.last_at, held_ns = held_ns + excluded.held_ns,
        capped_ns = coalesce(capped_ns + excluded.capped_ns, capped_ns, excluded.capped_ns),
        peak_mw = coalesce(max(peak_mw, excluded.peak_mw), peak_mw, excluded.peak_mw),
        bases = bases | excluded.bases, sources = sources | excluded.sources"""
ADD_DAY = """INSERT INTO days VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (day, account, partition, user)
    DO UPDATE SET energy_mj = energy_mj + excluded.energy_mj, held_ns = held_ns + excluded.held_ns"""
ADD_ACCOUNT = """INSERT INTO accounts VALUES (?, ?, ?, ?) ON CONFLICT (account, partition)
    DO UPDATE SET energy_mj = energy_mj + excluded.energy_mj, last_at = excluded.last_at"""
ADD_GPU_DAY = """INSERT INTO gpu_days VALUES (?, ?, ?) ON CONFLICT (day) DO UPDATE
    SET idle_mj = idle_mj + excluded.idle_mj, unattributed_mj = unattributed_mj + excluded.unattributed_mj"""
ADD_GPU_ENERGY = """INSERT INTO gpu_energy VALUES (?, ?, ?) ON CONFLICT (uuid) DO UPDATE
    SET idle_mj = idle_mj + excluded.idle_mj, unattributed_mj = unattributed_mj + excluded.unattributed_mj"""

LAST_CHARGED = f"SELECT max(last_at) FROM job_energy WHERE {KEY} AND sources <> 0"  # noqa: S608
SELECT_UNENDED = f"SELECT started_at FROM jobs WHERE {KEY} AND ended_at IS NULL"  # noqa: S608
END_JOB = f"UPDATE jobs SET ended_at = ?, day = ? WHERE {KEY} AND ended_at IS NULL"  # noqa: S608
NOTE_RECORDED = f"UPDATE jobs SET recorded = 1 WHERE {KEY} AND ended_at IS NOT NULL"  # noqa: S608

SELECT_META = "SELECT boot_id, at FROM meta"
SELECT_MARKS = "SELECT uuid, boot_id, at_mono FROM watermarks"
SELECT_OWNER = f"SELECT account, partition, user FROM jobs WHERE {KEY}"  # noqa: S608
SELECT_HOLDINGS = (
    "SELECT cluster, job_id, run, uuid, facts, share, since_at, since_mono, slices FROM holdings ORDER BY rowid"
)
SELECT_OVER = "SELECT cluster, job_id, run, at FROM over ORDER BY at DESC, rowid DESC LIMIT ?"
SELECT_WATERMARKS = "SELECT uuid, energy_mj, at, at_mono, boot_id, owners, source, power_mw, capped_ns FROM watermarks"
SELECT_USAGE = """SELECT cluster, job_id, run, uuid, energy_mj, held_ns, capped_ns, peak_mw, bases, sources
    FROM job_energy
    WHERE sources <> 0 AND (last_at >= ? OR (cluster, job_id, run) IN (SELECT cluster, job_id, run FROM holdings))"""
SELECT_ACCOUNTS = """SELECT account, partition, energy_mj, last_at FROM accounts
    WHERE last_at >= ? OR (account, partition) IN
        (SELECT account, partition FROM holdings CROSS JOIN jobs USING (job_id, run, cluster))"""
SELECT_ALL_ACCOUNTS = "SELECT account, partition, energy_mj FROM accounts"
SELECT_GPU_ENERGY = "SELECT uuid, idle_mj, unattributed_mj FROM gpu_energy"
SELECT_HOLDS = "SELECT uuid, reason, since_at, until_at FROM holds"

UNRECORDED = "recorded = 0 AND ended_at IS NOT NULL"
SELECT_JOBS = "SELECT cluster, job_id, run, facts, started_at, ended_at, asked, outcome, rule FROM jobs WHERE "
SELECT_JOB_GPUS = f"""SELECT uuid, energy_mj, held_ns, capped_ns, peak_mw, bases, sources, minor, model, cap_mw
    FROM job_energy WHERE {KEY} ORDER BY minor, uuid"""  # noqa: S608

PRUNED_JOBS = "SELECT job_id, run, cluster FROM jobs WHERE day <= ? AND ended_at < ? AND recorded = 1 LIMIT ?"
DELETE_JOB = f"DELETE FROM jobs WHERE {KEY}"  # noqa: S608
DELETE_JOB_ENERGY = f"DELETE FROM job_energy WHERE {KEY}"  # noqa: S608
PRUNE_JOBLESS_ENERGY = """DELETE FROM job_energy WHERE last_at < ?
    AND (job_id, run, cluster) NOT IN (SELECT job_id, run, cluster FROM holdings)
    AND NOT EXISTS (SELECT 1 FROM jobs
        WHERE jobs.job_id = job_energy.job_id AND jobs.run = job_energy.run AND jobs.cluster = job_energy.cluster)"""
PRUNE_DAYS = ("DELETE FROM days WHERE day < ?", "DELETE FROM gpu_days WHERE day < ?")
