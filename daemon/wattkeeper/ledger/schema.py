"""The tables of ``state.db``, and how long the ledger keeps what it keeps.

Times are Unix seconds, energies millijoules, powers milliwatts, lengths of time nanoseconds, days ``YYYY-MM-DD`` in the
node's local time. NULL is what is not known. An account, partition or user that Slurm does not set, or that nobody
knows yet, is the empty text where energy is summed by it.
"""

FILE = "state.db"
"""The ledger's name in ``state_dir``."""

ASIDE = ".corrupt-"
"""What follows it, with a time, in the name of a damaged ledger that was set aside."""

VERSION = 2
"""What ``PRAGMA user_version`` says of a file with these tables."""

OVER_KEPT_S = 7 * 86_400.0
"""Ended runs are remembered this long: no Epilog or Prolog of theirs comes later than that."""

OVER_KEPT = 5_000
"""At most so many ended runs are remembered, the latest."""

RECENT_S = 3_600.0
"""``load`` gives the usage of jobs that were charged within this time before the last commit."""

ACCOUNT_S = 86_400.0
"""``load`` gives the total of an account that was charged, or had a job, within this time before the last commit."""

RECORDED_AT_ONCE = 100
"""``unrecorded`` gives at most so many runs: records that a crash leaves unnoted are among the last of their files."""

PRUNED_AT_ONCE = 1_000
"""So many jobs are forgotten in one transaction, so that no hook waits for long."""

JOBS = """CREATE TABLE jobs (
    job_id INTEGER NOT NULL, run TEXT NOT NULL, cluster TEXT NOT NULL,
    uid INTEGER NOT NULL, user TEXT NOT NULL, account TEXT NOT NULL, partition TEXT NOT NULL,
    started_at REAL NOT NULL, ended_at REAL, day TEXT, asked TEXT, outcome TEXT NOT NULL, rule TEXT,
    facts TEXT NOT NULL, recorded INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, run, cluster)
)"""
"""A run of a job here. ``day`` is the one on which it ended; ``facts`` holds all that is known of it (``rows.py``);
``recorded``: its end-of-job record is written."""

JOB_ENERGY = """CREATE TABLE job_energy (
    job_id INTEGER NOT NULL, run TEXT NOT NULL, cluster TEXT NOT NULL, uuid TEXT NOT NULL,
    energy_mj INTEGER NOT NULL DEFAULT 0, last_at REAL NOT NULL, held_ns INTEGER NOT NULL DEFAULT 0,
    capped_ns INTEGER, peak_mw INTEGER, cap_mw INTEGER, minor INTEGER, model TEXT,
    bases INTEGER NOT NULL DEFAULT 0, sources INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, run, cluster, uuid)
) WITHOUT ROWID"""
"""What a run used of a GPU. ``bases`` and ``sources`` are sets as bits (``rows.py``); no source: it was never charged,
and its energy is not known. ``last_at`` is when it was last charged."""

DAYS = """CREATE TABLE days (
    day TEXT NOT NULL, account TEXT NOT NULL, partition TEXT NOT NULL, user TEXT NOT NULL,
    energy_mj INTEGER NOT NULL, held_ns INTEGER NOT NULL,
    PRIMARY KEY (day, account, partition, user)
) WITHOUT ROWID"""
"""What was charged on a day; an interval belongs to the day on which it ended. ``held_ns`` is time of GPUs held."""

GPU_DAYS = """CREATE TABLE gpu_days (
    day TEXT PRIMARY KEY, idle_mj INTEGER NOT NULL, unattributed_mj INTEGER NOT NULL
) WITHOUT ROWID"""
"""What the GPUs of the node used on a day for no job: with ``days``, all that their counters gained."""

ACCOUNTS = """CREATE TABLE accounts (
    account TEXT NOT NULL, partition TEXT NOT NULL, energy_mj INTEGER NOT NULL, last_at REAL NOT NULL,
    PRIMARY KEY (account, partition)
) WITHOUT ROWID"""
"""Totals that only grow; ``last_at`` is when it was last charged or last heard of a job."""

INDEXES = (
    "CREATE INDEX job_energy_last_at ON job_energy (last_at)",
    "CREATE INDEX jobs_day ON jobs (day, account, partition, user)",
    "CREATE INDEX jobs_unrecorded ON jobs (ended_at) WHERE recorded = 0",
)

NEEDED = ("meta", "holdings", "over", "watermarks", "gpu_energy", "holds", "accounts")
"""The tables that an agent begins with; they stay small."""

TABLES = (
    "CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), boot_id TEXT NOT NULL, at REAL NOT NULL)",
    """CREATE TABLE holdings (
        cluster TEXT NOT NULL, job_id INTEGER NOT NULL, run TEXT NOT NULL, uuid TEXT NOT NULL,
        facts TEXT NOT NULL, share TEXT NOT NULL, since_at REAL NOT NULL, since_mono REAL NOT NULL,
        slices INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (cluster, job_id, run, uuid)
    )""",
    """CREATE TABLE over (
        cluster TEXT NOT NULL, job_id INTEGER NOT NULL, run TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (cluster, job_id, run)
    )""",
    "CREATE INDEX over_at ON over (at)",
    """CREATE TABLE watermarks (
        uuid TEXT PRIMARY KEY, energy_mj INTEGER NOT NULL, at REAL NOT NULL, at_mono REAL NOT NULL,
        boot_id TEXT NOT NULL, owners TEXT NOT NULL,
        source TEXT NOT NULL DEFAULT 'counter', power_mw INTEGER, capped_ns INTEGER
    )""",
    """CREATE TABLE gpu_energy (
        uuid TEXT PRIMARY KEY, idle_mj INTEGER NOT NULL, unattributed_mj INTEGER NOT NULL
    )""",
    "CREATE TABLE holds (uuid TEXT PRIMARY KEY, reason TEXT NOT NULL, since_at REAL NOT NULL, until_at REAL)",
    JOBS,
    JOB_ENERGY,
    DAYS,
    GPU_DAYS,
    ACCOUNTS,
    *INDEXES,
)
