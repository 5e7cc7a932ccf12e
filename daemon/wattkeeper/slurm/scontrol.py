"""One job as Slurm's own commands print it, read so that no text of a user's can pass for another field.

``scontrol --local -o show job ID`` is one message to slurmctld (``-d`` would fetch the whole node table too, and
without ``--local`` there is a second one about federations). In what it prints the job's name, which is any text of
the user's, newlines too, stands before the QOS, and the comment behind it:

    JobId=7 JobName=TEXT UserId=al(1000) GroupId=… MCS_label=… … Account=ml QOS=high JobState=… … Comment=TEXT …

Either may hold a whole forged line, so neither the first QOS nor the last can be believed. What a user cannot do is
to take away the real one: where each of the words from MCS_label to JobState stands just once, it is Slurm's. Where
one stands more often (a forger, or the last task of a job array, for which scontrol prints every task) ``squeue`` is
asked instead: it prints the fields we name, the user's text last and padded to a width that we know.
"""

import asyncio
import re

from wattkeeper.model import UNKNOWN, JobText
from wattkeeper.protocols import Looked, LookupFailedError, LookupProblem
from wattkeeper.slurm.programs import Programs
from wattkeeper.system.process import Finished
from wattkeeper.text import printable

NAME_BYTES = 1024
_START = re.compile(r"JobId=(?P<id>[0-9]+) (?P<more>(?:[A-Za-z]+=[^\s=]* )*?)JobName=")
_SITES = re.compile(
    r"\([0-9]+\) MCS_label=\S+ Priority=[0-9]+ Nice=-?[0-9]+ Account=(?P<account>\S+)"
    r" QOS=(?P<qos>\S+)(?= WCKey=| JobState=)"
)
_ONCE = ("MCS_label=", "QOS=", "JobState=")
_UID = re.compile(r" UserId=[^\n]*?\((?P<uid>[0-9]+)\) GroupId=")
_ROW = re.compile(rb"(?P<id>[0-9]+)\|(?P<uid>[0-9]+)\|(?P<account>[^|\n]*)\|(?P<qos>[^|\n]*)\|")
_ABSENT = frozenset({"", "(null)", "N/A"})
_HET = re.compile(r" HetJobIdSet=[0-9,\-]+\Z")


class Scontrol:
    """``JobLookup`` by Slurm's commands: 7 ms, and one message to slurmctld, three where the text is ambiguous."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    async def look_up(self, job_id: int, deadline_s: float) -> Looked:
        """What ``scontrol``, or else ``squeue``, says of a job: QOS, account and name. Raises LookupFailedError."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        words = ("--local", "-a", "-o", "show", "job", str(job_id))
        done = await self._programs.run("scontrol", *words, deadline_s=deadline_s)
        text = _answer_of("scontrol", job_id, done).output
        found = parse_scontrol(text)
        if found is not None:
            return found
        listed = ("--local", "-a", "-h", "-j", str(job_id), "-o", f"%A|%U|%a|%q|%{NAME_BYTES}j")
        done = await self._programs.run("squeue", *listed, deadline_s=max(end - loop.time(), 0.001))
        rows = parse_squeue(_answer_of("squeue", job_id, done).raw)
        if job_id not in rows:
            kind = LookupProblem.WRONG if rows or text.strip() else LookupProblem.NOT_FOUND
            raise LookupFailedError(kind, f"job {job_id}: squeue lists no such job: {printable(done.output, 80)}")
        return rows[job_id]

    async def close(self) -> None:
        """Nothing goes on between look-ups."""


def _answer_of(program: str, job_id: int, done: Finished) -> Finished:
    """What a program said, where it ended well. Raises LookupFailedError otherwise."""
    if done.status == 0 and done.output.strip():
        return done
    said = printable(done.complaint or done.output.strip() or "nothing", 120)
    if done.late:
        kind = LookupProblem.TIMEOUT
    elif "Invalid job id" in done.complaint or (done.status == 0 and not done.output.strip()):
        kind = LookupProblem.NOT_FOUND
    else:
        kind = LookupProblem.REFUSED
    raise LookupFailedError(kind, f"job {job_id}: {program} said: {said}")


def parse_scontrol(text: str) -> Looked | None:
    """The job in what ``scontrol -o show job`` printed for one; None where the text does not settle which is which.

    ``text`` may be anything. The name is what lies between ``JobName=`` and the owner's.
    """
    start = _START.match(text)
    sites = _SITES.search(text, start.end()) if start else None
    if start is None or sites is None or any(text.count(word) != 1 for word in _ONCE):
        return None
    owner_at = text.rfind(" UserId=", start.end(), sites.start())
    owner = _UID.match(text, owner_at) if owner_at >= 0 else None
    if owner is None:
        return None
    name = text[start.end() : owner_at]
    if "HetJobId=" in start["more"]:
        name = _HET.sub("", name)
    return Looked(int(start["id"]), int(owner["uid"]), _text(sites["qos"]), name, _text(sites["account"]))


def parse_squeue(raw: bytes) -> dict[int, Looked]:
    """By id, the jobs in what ``squeue -o '%A|%U|%a|%q|%1024j'`` printed; none where any byte is out of place."""
    found: dict[int, Looked] = {}
    at = 0
    while at < len(raw):
        row = _ROW.match(raw, at)
        if row is None:
            return {}
        at = row.end() + NAME_BYTES + 1
        if raw[at - 1 : at] != b"\n":
            return {}
        name = raw[row.end() : at - 1].rstrip(b" ")
        job_id = int(row["id"])
        if job_id in found:
            return {}
        found[job_id] = Looked(
            job_id,
            int(row["uid"]),
            _text(row["qos"].decode(errors="replace")),
            name.decode(errors="replace") if len(name) < NAME_BYTES else UNKNOWN,  # perhaps cut
            _text(row["account"].decode(errors="replace")),
        )
    return found


def _text(word: str) -> JobText:
    return None if word.strip() in _ABSENT else word.strip()
