"""Builds the simulated ``libnvidia-ml.so.1``: as a build hook of hatchling, from tests, or by hand.

By hand, into the source tree: ``python daemon/build_simulator.py``. Needs a C compiler and ``nvml.h`` from the
package nvidia-nvml-dev. An installation without them succeeds and lacks only the simulated GPUs.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # imported by a test, or run by hand
    BuildHookInterface = object

SOURCES = Path(__file__).parent / "wattkeeper" / "simulator"
LIBRARY_NAME = "libnvidia-ml.so.1"
IN_TREE = SOURCES / "lib" / LIBRARY_NAME

FLAGS = (
    "-std=gnu11",
    "-DNVML_NO_UNVERSIONED_FUNC_DEFS",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Werror=missing-prototypes",
    "-Wno-attribute-alias",  # one body answers for functions of every signature: see unsupported.c
    "-Wno-deprecated-declarations",  # old names are exported for old clients
    "-fvisibility=hidden",
    "-O2",
    "-fPIC",
)


class CannotBuildError(Exception):
    """No compiler, no header, or a compiler that fails; the text says which, and the mend."""


def find_compiler() -> str:
    """``$CC`` or the first C compiler on PATH."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    raise CannotBuildError("there is no C compiler (mend: apt install gcc libc6-dev, or dnf install gcc)")


def find_header_folder() -> Path:
    """The folder of ``nvml.h``, from whichever package of NVIDIA's carries it (its place differs by version)."""
    for name in ("nvidia-nvml-dev", "nvidia-nvml-dev-cu13", "nvidia-nvml-dev-cu12"):
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if path.name == "nvml.h" and path.is_file():
                return path.parent
    raise CannotBuildError("there is no nvml.h (mend: pip install nvidia-nvml-dev)")


def declared_functions(preprocessed: str) -> list[str]:
    """The names of the functions that a preprocessed ``nvml.h`` declares."""
    text = re.sub(r"^#.*$", "", preprocessed, flags=re.MULTILINE)
    count = 1
    while count:
        text, count = re.subn(r"\{[^{}]*\}", "", text)
    return sorted(set(re.findall(r"\b(nvml\w+)\s*\([^()]*\)\s*;", text)))


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotBuildError(f"{command[0]} failed:\n{done.stderr.strip()}")
    return done.stdout


def compile_library(output: Path, *, header_folder: Path | None = None, flags: Sequence[str] = ()) -> Path:
    """Compiles the simulator to ``output``, put in place whole, and answers ``output``.

    ``flags`` are added to the compiler's (``-fsanitize=address``, say). Raises CannotBuildError.
    """
    compiler = find_compiler()
    include = f"-I{header_folder or find_header_folder()}"
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as scratch:
        preprocessed = _run([compiler, "-E", include, FLAGS[0], FLAGS[1], str(SOURCES / "nvml_header.h")])
        stubs = "".join(f"UNSUPPORTED({name})\n" for name in declared_functions(preprocessed))
        (Path(scratch) / "unsupported.inc").write_text(stubs)
        draft = Path(scratch) / LIBRARY_NAME
        command = [compiler, *FLAGS, include, f"-I{scratch}", *flags]
        command += ["-shared", f"-Wl,-soname,{LIBRARY_NAME}", "-Wl,-z,defs", "-o", str(draft)]
        command += [str(source) for source in sorted(SOURCES.glob("*.c"))]
        _run([*command, "-lpthread", "-lm"])
        draft.replace(output)
    return output


def refresh_in_tree() -> Path:
    """Compiles into the source tree unless what is there is newer than every source. Raises CannotBuildError."""
    sources = [Path(__file__), *SOURCES.glob("*.[ch]")]
    if IN_TREE.is_file() and IN_TREE.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return IN_TREE
    return compile_library(IN_TREE)


class SimulatorBuildHook(BuildHookInterface):  # type: ignore[misc,unused-ignore]  # hatchling carries no types here
    """Puts the library into wheels, and into the source tree for editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        try:
            compile_library(IN_TREE)
        except CannotBuildError as error:
            if os.environ.get("WATTKEEPER_REQUIRE_SIMULATOR"):
                raise
            IN_TREE.unlink(missing_ok=True)  # one of another source would be worse than none
            self.app.display_warning(
                f"wattkeeper: the simulated GPUs were not built: {error}\n"
                "Everything but `wattkeeper sim` and `wattkeeper demo` works. "
                "Mend that and install again to have them."
            )
            return
        if version != "editable":
            build_data["force_include"][str(IN_TREE)] = f"wattkeeper/simulator/lib/{LIBRARY_NAME}"
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"


def main() -> int:
    try:
        print(compile_library(IN_TREE))
    except CannotBuildError as error:
        print(f"build_simulator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
