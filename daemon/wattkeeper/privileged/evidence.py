"""Who runs here: what the environment of a process says of its Slurm job, a fixed list of variables and no others.

Such an environment is its owner's alone to read, and may hold secrets. What is told of it is what ``squeue`` tells.
"""

import os
import re
from functools import partial
from pathlib import Path

VARIABLES = frozenset({
    "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOB_UID", "SLURM_JOB_USER", "SLURM_JOB_ACCOUNT", "SLURM_JOB_PARTITION",
    "SLURM_JOB_NUM_NODES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_RESTART_COUNT", "SLURM_JOB_RESTART_COUNT",
})  # fmt: skip
MOST_BYTES = 96 * 1024
MOST_OF_ONE = 256
"""Of an environment so much is read, and of a variable so many bytes are told."""

_NAMES = b"|".join(name.removeprefix("SLURM_").encode() for name in sorted(VARIABLES))
_TOLD = re.compile(rb"\0(SLURM_(?:%s))=([^\0]{0,%d})" % (_NAMES, MOST_OF_ONE))  # fast: begins with what it looks for
_REAL_UID = re.compile(rb"^Uid:\t(\d+)\t", re.MULTILINE)


def evidence_of(pid: int, proc: Path = Path("/proc")) -> dict[str, str]:
    """The variables of a process; SLURM_JOB_UID is the kernel's word. Raises OSError where it cannot be read.

    The word is who started it: a set-uid program, which belongs to root, keeps its user's environment.
    """
    folder = os.open(proc / str(pid), os.O_RDONLY | os.O_DIRECTORY)  # of this process, whoever has its number later
    inside = partial(os.open, dir_fd=folder)
    try:
        with open("environ", "rb", opener=inside) as file:
            raw = b"\0" + file.read(MOST_BYTES)
        with open("status", "rb", opener=inside) as file:
            uid = _REAL_UID.findall(file.read())[0]
    finally:
        os.close(folder)
    told = {found[1].decode(): found[2].decode(errors="replace") for found in _TOLD.finditer(raw)}
    return {**told, "SLURM_JOB_UID": uid.decode()}
