"""The tables of ``state.db``, and how long the ledger keeps what it keeps."""

VERSION = 1
"""What ``PRAGMA user_version`` says of a file with these tables."""

OVER_KEPT_S = 7 * 86_400.0
"""Ended runs are remembered this long: no Epilog or Prolog of theirs comes later than that."""

OVER_KEPT = 20_000
"""At most so many ended runs are remembered, the latest."""

RECENT_S = 3_600.0
"""``load`` gives the energy of jobs that were charged within this time before the last commit."""

TABLES = (
    "CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), boot_id TEXT NOT NULL, at REAL NOT NULL)",
    """CREATE TABLE holdings (
        cluster TEXT NOT NULL, job_id INTEGER NOT NULL, run TEXT NOT NULL, uuid TEXT NOT NULL,
        facts TEXT NOT NULL, share TEXT NOT NULL, since_at REAL NOT NULL, since_mono REAL NOT NULL,
        PRIMARY KEY (cluster, job_id, run, uuid)
    )""",
    """CREATE TABLE over (
        cluster TEXT NOT NULL, job_id INTEGER NOT NULL, run TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (cluster, job_id, run)
    )""",
    "CREATE INDEX over_at ON over (at)",
    """CREATE TABLE watermarks (
        uuid TEXT PRIMARY KEY, energy_mj INTEGER NOT NULL, at REAL NOT NULL, at_mono REAL NOT NULL,
        boot_id TEXT NOT NULL, owners TEXT NOT NULL
    )""",
    """CREATE TABLE job_energy (
        cluster TEXT NOT NULL, job_id INTEGER NOT NULL, run TEXT NOT NULL, uuid TEXT NOT NULL,
        energy_mj INTEGER NOT NULL, last_at REAL NOT NULL,
        PRIMARY KEY (cluster, job_id, run, uuid)
    )""",
    "CREATE INDEX job_energy_last_at ON job_energy (last_at)",
    """CREATE TABLE gpu_energy (
        uuid TEXT PRIMARY KEY, idle_mj INTEGER NOT NULL, unattributed_mj INTEGER NOT NULL
    )""",
    "CREATE TABLE holds (uuid TEXT PRIMARY KEY, reason TEXT NOT NULL, since_at REAL NOT NULL, until_at REAL)",
)

UPSERT_META = (
    "INSERT INTO meta VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET boot_id = excluded.boot_id, at = excluded.at"
)
DELETE_HOLDING = "DELETE FROM holdings WHERE cluster = ? AND job_id = ? AND run = ? AND uuid = ?"
UPSERT_HOLDING = "INSERT OR REPLACE INTO holdings VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_OVER = "INSERT OR IGNORE INTO over VALUES (?, ?, ?, ?)"
PRUNE_OVER_BY_AGE = "DELETE FROM over WHERE at < ?"
PRUNE_OVER_BY_COUNT = (
    "DELETE FROM over WHERE rowid IN (SELECT rowid FROM over ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?)"
)
UPSERT_WATERMARK = "INSERT OR REPLACE INTO watermarks VALUES (?, ?, ?, ?, ?, ?)"
ADD_JOB_ENERGY = """INSERT INTO job_energy VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (cluster, job_id, run, uuid)
    DO UPDATE SET energy_mj = energy_mj + excluded.energy_mj, last_at = excluded.last_at"""
ADD_GPU_ENERGY = """INSERT INTO gpu_energy VALUES (?, ?, ?)
    ON CONFLICT (uuid) DO UPDATE
    SET idle_mj = idle_mj + excluded.idle_mj, unattributed_mj = unattributed_mj + excluded.unattributed_mj"""
UPSERT_HOLD = "INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?)"
DELETE_HOLD = "DELETE FROM holds WHERE uuid = ?"

SELECT_META = "SELECT boot_id, at FROM meta"
SELECT_HOLDINGS = "SELECT cluster, job_id, run, uuid, facts, share, since_at, since_mono FROM holdings ORDER BY rowid"
SELECT_OVER = "SELECT cluster, job_id, run FROM over"
SELECT_WATERMARKS = "SELECT uuid, energy_mj, at, at_mono, boot_id, owners FROM watermarks"
SELECT_JOB_ENERGY = """SELECT cluster, job_id, run, uuid, energy_mj FROM job_energy
    WHERE last_at >= ? OR (cluster, job_id, run) IN (SELECT cluster, job_id, run FROM holdings)"""
SELECT_GPU_ENERGY = "SELECT uuid, idle_mj, unattributed_mj FROM gpu_energy"
SELECT_HOLDS = "SELECT uuid, reason, since_at, until_at FROM holds"
