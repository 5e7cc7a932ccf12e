"""The process that holds pyslurm: job ids come in, one a line, and what Slurm says of each goes out as JSON.

It is a process of its own because libslurm ends its process where slurm.conf does not please it, and cannot be told
to stop waiting. Run as a plain script, by ``slurm/pyslurm.py``; standard library only, besides pyslurm.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    """Greet, then answer until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libslurm prints must not pass for an answer

    def say(what: object) -> None:
        print(json.dumps(what), file=out, flush=True)

    try:
        import pyslurm  # type: ignore[import-not-found,unused-ignore]
    except Exception as error:  # noqa: BLE001 - a mismatch of releases is a RuntimeError here, an ImportError there
        say({"error": f"{type(error).__name__}: {error}"})
        return
    say({"version": str(pyslurm.__version__)})
    for line in sys.stdin:
        try:
            say({"jobs": ask(pyslurm, int(line))})
        except Exception as error:  # noqa: BLE001 - each release has errors of its own; the words tell
            say({"error": f"{type(error).__name__}: {error}"})


def ask(pyslurm: Any, job_id: int) -> list[dict[str, Any]]:
    """The job, or all tasks of its array, by whichever way this release of pyslurm has.

    ``job().find_id`` (up to now in every release, since 23.02 as deprecated) is one message to slurmctld, and gives
    each task of an array; ``Job.load`` loads steps too, and of an array's tasks gives one.
    """
    if hasattr(pyslurm, "job"):
        found = pyslurm.job().find_id(str(job_id))
        names = ("job_id", "user_id", "qos", "name", "account")
        return [{name: job[name] for name in names} for job in found]
    job = pyslurm.Job.load(job_id)
    return [
        {"job_id": job.id, "user_id": job.user_id, "qos": job.qos, "name": job.name, "account": job.account},
    ]


if __name__ == "__main__":
    main()
