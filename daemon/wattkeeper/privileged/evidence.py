"""Who runs here: what the environment of a process says of its Slurm job, a fixed list of variables and no others.

Such an environment is its owner's alone to read, and may hold secrets. What is told of it is what ``squeue`` tells.
"""

from pathlib import Path

VARIABLES = frozenset({
    "SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_JOB_UID", "SLURM_JOB_USER", "SLURM_JOB_ACCOUNT", "SLURM_JOB_PARTITION",
    "SLURM_JOB_NUM_NODES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_RESTART_COUNT", "SLURM_JOB_RESTART_COUNT",
})  # fmt: skip
MOST_BYTES = 1 << 20
MOST_OF_ONE = 256
"""Of an environment so much is read, and of a variable so many bytes are told."""


def evidence_of(pid: int, proc: Path = Path("/proc")) -> dict[str, str]:
    """The variables of a process; SLURM_JOB_UID is the kernel's word. Raises OSError where it cannot be read."""
    folder = proc / str(pid)
    with (folder / "environ").open("rb") as file:
        raw = file.read(MOST_BYTES)
        uid = folder.stat().st_uid  # of the same process: the open file keeps its number from being given away
    pairs = (entry.partition(b"=")[::2] for entry in raw.split(b"\0"))
    named = {name.decode(errors="replace"): value for name, value in pairs}
    told = {name: named[name][:MOST_OF_ONE].decode(errors="replace") for name in VARIABLES & named.keys()}
    return {**told, "SLURM_JOB_UID": str(uid)}
