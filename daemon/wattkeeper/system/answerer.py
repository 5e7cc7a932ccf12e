"""A program beside this one that answers each line it is sent with a line."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress

MAX_LINE = 1 << 17


class Answerer:
    """Starts when first asked, and again after it ended. Its first line is a greeting; it ends with its input."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """``command``: its first word is a path."""
        self._command = command
        self._environment = environment
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def ask(self, line: str, deadline_s: float) -> str | None:
        """Its answer, or with ``line`` empty its greeting from a fresh start; "" where it ended without a word.

        None where it said nothing within ``deadline_s`` seconds: then it is killed.
        """
        try:
            async with asyncio.timeout(deadline_s), self._turn:
                try:
                    return await self._exchange(line)
                except BaseException:
                    await self.close()  # whatever it may still say is no answer to the next question
                    raise
        except TimeoutError:
            return None
        except (OSError, ValueError):
            return ""

    async def close(self) -> None:
        """Kill it, if it runs."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _exchange(self, line: str) -> str:
        greeting = (
            "" if self._process is not None and self._process.returncode is None and line else await self._start()
        )
        process = self._process
        if not line or process is None or process.stdin is None:
            return greeting
        process.stdin.write(line.encode() + b"\n")
        await process.stdin.drain()
        return await _line_of(process)

    async def _start(self) -> str:
        await self.close()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=MAX_LINE,
            env=dict(self._environment),
            start_new_session=True,
        )
        return await _line_of(self._process)


async def _line_of(process: Process) -> str:
    line = await process.stdout.readline() if process.stdout else b""
    if not line.endswith(b"\n"):
        raise ConnectionResetError("it ended")
    return line.decode(errors="replace").rstrip("\n")
