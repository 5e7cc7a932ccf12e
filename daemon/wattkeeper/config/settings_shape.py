"""What may stand in the agent's settings: ``config.settings`` reads by this, and editors complete by it."""

import re

from wattkeeper.config.shapes import (
    TEXT,
    Either,
    Key,
    Kind,
    Listed,
    Named,
    Nothing,
    Shape,
    Span,
    Words,
    Written,
    one_or_more,
    or_nothing,
)
from wattkeeper.core.request import MILLI
from wattkeeper.units import POWER

UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]{1,80}")
MINOR = re.compile(r"[0-9]{1,3}")
GRES_INDEX = re.compile(r"0|[1-9][0-9]{0,2}")
LISTEN = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>[0-9]{1,5})")
SOCKET_PATH = 107
"""Bytes: sun_path of unix(7), less the zero byte at its end."""

UNIX_LISTEN = re.compile(r"unix:/.{0,106}")

WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.$-]{0,254}")

MODE = Words(("enforce", "observe"))
DRIFT = Words(("repair", "report", "yield"))
ON_STOP = Words(("restore-idle", "keep", "restore"))
LOOKUP = Words(("auto", "pyslurm", "scontrol", "off"))
STRICT = Words(("off", "fail"))
JOB_LABELS = Words(("full", "id", "none"))
BASELINE = Words(("found", "default"))
INTERVAL = Span(0.1, 3600, "100ms to 1h, such as 5s")
GRACE = Span(0, 86_400, "0s to 1d, such as 5m")
TIMEOUT = Span(0.05, 60, "50ms to 1m, such as 2s")
KEEP = Span(86_400, 36_500 * 86_400, "1d to 36500d, such as 400d")

_FLAG = Words(("true", "false"))
_PATH = Written((re.compile(r"/[\s\S]*"),), allowed="an absolute path")
_NAME = Written((WORD,), scalar=True, allowed="a name")
GPU = Written((MINOR, UUID), numbers=(0, 999), allowed="minor numbers such as 0, UUIDs such as GPU-1c2d…")
_GPUS = Either((GPU, Listed(GPU, empty=True)))
_WATTS = re.compile(rf"(?![\s\S]*{MILLI.pattern}){POWER.pattern}", re.IGNORECASE)
ADDRESS = Written((LISTEN, UNIX_LISTEN), allowed='"127.0.0.1:9745", "[::1]:9745", unix:/PATH, null')
_DECLARED = Named(TEXT, Written((_WATTS,), numbers=(0, 999_999_999), trimmed=True, allowed="400W, 0.4kW"))
_MAP = Either((Named(Written((GRES_INDEX,), allowed="0, 1, 2 …"), GPU), Listed(GPU), Nothing()))

GPUS = Shape(
    {
        "library": Key(or_nothing(_PATH), "Path of libnvidia-ml.so.1; null: the system's"),
        "include": Key(or_nothing(_GPUS), "Minor numbers or UUIDs to manage; null: all"),
        "exclude": Key(_GPUS, "Minor numbers or UUIDs to leave alone"),
        "map": Key(_MAP, "GRES index to GPU, {0: 4, 1: 5}, over whatever Slurm says; null: Slurm's own word"),
        "baseline": Key(
            Either((BASELINE, _DECLARED)),
            'What "put it back" means. found: the limit before the first write; default: the board\'s; or watts by '
            'model, {"*A100*": 300W}',
        ),
        "exceed_baseline": Key(_FLAG, "true: policy may give more than the baseline"),
    }
)
METRICS = Shape(
    {
        "listen": Key(or_nothing(ADDRESS), 'Where Prometheus scrapes: "127.0.0.1:9745"; null: nowhere'),
        "web_config": Key(or_nothing(_PATH), "TLS and who may scrape: a file as Prometheus' exporters take it"),
        "textfile": Key(or_nothing(_PATH), "Also write the metrics to this file, for node_exporter"),
        "job_labels": Key(
            or_nothing(JOB_LABELS),
            "full: series of jobs tell user and account to all who reach the port; id; none; null: full if it guards",
        ),
        "grace": Key(GRACE, "For how long the series of a finished job stay: 5m"),
    }
)
SLURM = Shape(
    {
        "lookup": Key(LOOKUP, "How to learn what the hook does not tell, if a policy needs it"),
        "conf": Key(or_nothing(_PATH), "Path of slurm.conf; null: wherever Slurm finds it"),
        "bin_dir": Key(or_nothing(_PATH), "Folder of scontrol and slurmd; null: from PATH"),
        "timeout": Key(TIMEOUT, "Of a look-up: 2s"),
        "event_users": Key(one_or_more(_NAME), "Who may report jobs: add SlurmdUser if it is not root"),
        "strict": Key(STRICT, "fail: a Prolog that could not set its caps drains the node, as Slurm does"),
    }
)
LEDGER = Shape({"keep": Key(KEEP, "For how long jobs, sums of days and end-of-job records are kept: 400d")})

SETTINGS = Shape(
    {
        "mode": Key(MODE, "observe: decide, meter and report, but write no limit"),
        "node": Key(or_nothing(_NAME), "Slurm's name of this node; null: as the hook says, else the short host name"),
        "time_zone": Key(or_nothing(TEXT), "In which the policy's schedules are meant; null: the machine's"),
        "interval": Key(INTERVAL, "How often limits are read back and energy is metered: 5s"),
        "run_dir": Key(_PATH, "Sockets, baselines and the hooks' spool: a tmpfs"),
        "state_dir": Key(_PATH, "The ledger"),
        "policies": Key(_PATH, "A policy file, or a folder whose *.yaml are read in the order of their names"),
        "gpus": Key(GPUS, "Which GPUs, and what their baseline is"),
        "metrics": Key(METRICS, "For Prometheus"),
        "slurm": Key(SLURM, "Slurm on this node"),
        "ledger": Key(LEDGER, "Energy by job and account"),
        "drift": Key(DRIFT, "What to do where another program changed a limit"),
        "on_stop": Key(ON_STOP, "restore-idle: held GPUs keep their cap, free ones go to baseline"),
    }
)

SETTINGS_KINDS: dict[str, Kind] = {}
"""The kinds that ``Ref`` names: none."""
