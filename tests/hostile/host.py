"""Starts workers under the sanitizers, and tells what they say when they end."""

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any, Self

import build_simulator
from tests.hostile.calls import declarations

ROOT = Path(__file__).parents[2]
SANITIZE = ("-fsanitize=address,undefined,float-cast-overflow,float-divide-by-zero", "-fno-sanitize-recover=all", "-g")


class WorkerError(AssertionError):
    """A worker that a sanitizer ended, that crashed, or that did not answer in time; the text has its last words."""


@cache
def missing() -> str | None:
    """What this machine lacks for sanitizers; None where it has all."""
    try:
        runtime = _runtime()
    except build_simulator.CannotBuildError as error:
        return str(error)
    return None if runtime.is_file() else "the C compiler has no libasan (mend: apt install gcc)"


def _runtime() -> Path:
    command = [build_simulator.find_compiler(), "-print-file-name=libasan.so"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()).resolve()


class Host:
    """A sanitized library, and the worker that has it loaded; a new one after each that ended."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wk-hostile-", dir="/tmp"))
        header = build_simulator.find_header_folder()
        self._library = build_simulator.compile_library(
            self._folder / "lib" / build_simulator.LIBRARY_NAME, header_folder=header, flags=SANITIZE
        )
        command = [build_simulator.find_compiler(), "-E", "-DNVML_NO_UNVERSIONED_FUNC_DEFS", str(header / "nvml.h")]
        preprocessed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        functions = [(one.name, one.takes) for one in declarations(preprocessed)]
        (self._folder / "functions.json").write_text(json.dumps(functions))
        self._worker: subprocess.Popen[str] | None = None
        self._words = self._folder / "stderr"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, do: str, timeout_s: float = 60, **asked: Any) -> Any:
        """What the worker answers. Raises WorkerError."""
        worker = self._running()
        assert worker.stdin
        assert worker.stdout
        try:
            worker.stdin.write(json.dumps({"do": do, **asked}) + "\n")
            worker.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words("ended before it was asked")) from None
        ready, _, _ = select.select([worker.stdout], [], [], timeout_s)
        line = worker.stdout.readline() if ready else ""
        if not line:
            raise WorkerError(self._last_words("ended" if ready else f"did not answer within {timeout_s} s"))
        return json.loads(line)

    def _running(self) -> subprocess.Popen[str]:
        if self._worker is None:
            arguments = [str(self._library), str(self._folder / "sim"), str(self._folder / "functions.json")]
            environment = {
                "LD_PRELOAD": str(_runtime()),
                "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
                "UBSAN_OPTIONS": "print_stacktrace=1",
                "PYTHONMALLOC": "malloc",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "daemon")]),
            }
            with self._words.open("w") as words:
                self._worker = subprocess.Popen(
                    [sys.executable, "-m", "tests.hostile.worker", *arguments],
                    cwd=ROOT,
                    env={**os.environ, **environment},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=words,
                    text=True,
                )
        return self._worker

    def _last_words(self, what: str) -> str:
        self._end()
        words = re.sub(r"wattkeeper simulator: .* is damaged .*\n", "", self._words.read_text(errors="replace"))
        return f"the worker {what}:\n{words[-6000:]}"

    def _end(self) -> None:
        if self._worker is None:
            return
        timer = threading.Timer(2, self._worker.kill)
        timer.start()
        assert self._worker.stdin
        assert self._worker.stdout
        with contextlib.suppress(BrokenPipeError):
            self._worker.stdin.close()
        self._worker.wait()
        self._worker.stdout.close()
        timer.cancel()
        self._worker = None
