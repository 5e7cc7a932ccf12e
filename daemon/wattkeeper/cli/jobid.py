"""Job ids as people write them: ``1234``, a task of an array ``1234_5``, a part of a heterogeneous job ``1234+1``."""

import asyncio
import os
import re

import click

from wattkeeper.cli.client import installed_settings
from wattkeeper.errors import WattkeeperError
from wattkeeper.system import process
from wattkeeper.text import printable

TIMEOUT_S = 2.0
"""How long slurmctld may take to say which job a task of an array is."""

_ID = re.compile(r"(?P<plain>[0-9]{1,10})(?:[_+][0-9]{1,10})?", re.ASCII)
_ANSWER = re.compile(r"JobId=(?P<id>[0-9]+)\s.*?\bJobState=(?P<state>[A-Z_]+)", re.ASCII | re.DOTALL)
_UNKNOWN = re.compile(r"Invalid job id|\bnot found\s*$", re.IGNORECASE)


class JobIdType(click.ParamType[str]):
    """Takes an id in any of Slurm's forms, as text; nothing is looked up."""

    name = "job id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself, where it can be a job's id."""
        text = str(value)
        found = _ID.fullmatch(text)
        if found is None or not int(found["plain"]):
            self.fail(f"'{text}' is not a job id, such as 1234, 1234_5 (array) or 1234+1 (het job)", param, ctx)
        return text


def raw_job_id(text: str) -> int:
    """The number by which the node knows the job. Of an array's task, or a het job's part, Slurm is asked once.

    Raises WattkeeperError where Slurm is not at hand, or knows no such job; SettingsError where nobody can tell where
    Slurm is.
    """
    if text.isdecimal():
        return int(text)
    program, environment = _scontrol()
    done = asyncio.run(process.run([program, "-o", "show", "job", text], TIMEOUT_S, environment))
    found = _ANSWER.match(done.output)
    if done.status == 0 and found is not None:
        if found["state"] == "PENDING":
            raise WattkeeperError(f"job {text}: has not started: it is pending in Slurm")
        return int(found["id"])
    mend = f"give the number that the job has by itself: sacct -j {text} -o jobidraw"
    said = done.complaint or done.output.strip() or f"{program} ended with status {done.status}"
    if _UNKNOWN.search(said):
        raise WattkeeperError(f"job {text}: Slurm does not know it, or no longer; {mend}")
    last = printable(said.splitlines()[-1].removeprefix("scontrol: error: "))
    raise WattkeeperError(f"job {text}: Slurm cannot be asked which job that is ({last}); {mend}")


def _scontrol() -> tuple[str, dict[str, str]]:
    """Where ``scontrol`` is by this node's settings, and the environment to run it in."""
    slurm = installed_settings().slurm
    environment = {**os.environ, "LC_ALL": "C"}
    if slurm.conf is not None:
        environment.setdefault("SLURM_CONF", str(slurm.conf))
    return str(slurm.bin_dir / "scontrol") if slurm.bin_dir is not None else "scontrol", environment
