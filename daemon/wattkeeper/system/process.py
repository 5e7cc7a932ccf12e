"""Running other programs: always with a deadline, never through a shell."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left: exit status (None: it could not be started, or was ``late``) and its output.

    ``raw``: the output's bytes, for whom their number matters.
    """

    status: int | None
    output: str
    complaint: str
    raw: bytes = b""
    late: bool = False


async def run(command: Sequence[str], deadline_s: float, environment: Mapping[str, str] | None = None) -> Finished:
    """Run a program and give what it printed; its whole process group is killed at the deadline. Never raises."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        return Finished(None, "", f"{command[0]}: {error.strerror}")
    try:
        async with asyncio.timeout(deadline_s):
            output, complaint = await process.communicate()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        return Finished(None, "", f"{command[0]}: no answer in {deadline_s:g} s", late=True)
    except asyncio.CancelledError:
        os.killpg(process.pid, signal.SIGKILL)  # nobody waits for it any more
        raise
    text, said = output.decode(errors="replace"), complaint.decode(errors="replace").strip()
    return Finished(process.returncode, text, said, output)
