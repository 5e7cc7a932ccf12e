"""Builds the simulated ``libnvidia-ml.so.1``: as a build hook of hatchling, from tests, or by hand.

By hand, into the source tree: ``python daemon/build_simulator.py``. Needs a C compiler and ``nvml.h`` from the
package nvidia-nvml-dev. An installation without them succeeds and lacks only the simulated GPUs.

From the same objects it links a library for each older driver that the sources have a ``names-BRANCH.txt`` of.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    for name in ("nvidia-nvml-dev", "nvidia-nvml-dev-cu13", "nvidia-nvml-dev-cu12", "nvidia-nvml-dev-cu11"):
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if path.name == "nvml.h" and path.is_file():
                return path.parent
    raise CannotBuildError("there is no nvml.h (mend: pip install nvidia-nvml-dev)")


@dataclass(frozen=True)
class Driver:
    """An older driver, as the ``nvml.h`` of its time shows it."""

    branch: str  # "525"
    version: str
    cuda: int  # major * 1000 + minor * 10
    field_end: int  # NVML_FI_MAX
    names: tuple[str, ...]  # of the functions it has

    def output(self, newest: Path) -> Path:
        """Where its library lies, beside the newest driver's."""
        return newest.parent / f"driver-{self.branch}" / newest.name

    def flags(self) -> list[str]:
        """What driver.c asks for."""
        version = f"{self.cuda // 1000}.{self.version}"
        macros = {"WK_FIELD_END": self.field_end, "WK_CUDA_VERSION": self.cuda, "WK_NVML_VERSION": f'"{version}"'}
        return [f"-D{name}={value}" for name, value in macros.items()]

    def exports(self) -> str:
        """A linker's version script: its own functions, and the simulator's controls."""
        return f"{{ global: {' '.join(f'{name};' for name in self.names)} wk_sim_*; local: *; }};\n"


def read_drivers() -> tuple[Driver, ...]:
    """Every older driver whose names the sources hold, the oldest first."""
    drivers = []
    for path in sorted(SOURCES.glob("names-*.txt")):
        head, *names = path.read_text().splitlines()
        found = re.search(r"driver (\d+(?:\.\d+)+); NVML_FI_MAX (\d+), CUDA (\d+)$", head)
        if found is None:
            raise CannotBuildError(f"{path}: its first line does not name driver, NVML_FI_MAX and CUDA")
        branch = path.stem.partition("-")[2]
        drivers.append(Driver(branch, found[1], int(found[3]), int(found[2]), tuple(names)))
    return tuple(drivers)


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


def _compile(sources: Iterable[Path], scratch: Path, command: Sequence[str]) -> list[str]:
    """Compiles each source to an object in ``scratch``; answers their paths."""
    pairs = [(source, scratch / f"{source.stem}.o") for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda pair: _run([*command, "-c", "-o", str(pair[1]), str(pair[0])]), pairs))
    return [str(made) for _, made in pairs]


def _stubs(compiler: str, include: str, drivers: Iterable[Driver]) -> str:
    """The list for unsupported.c: what this header declares, and what it no longer does."""
    preprocessed = _run([compiler, "-E", include, FLAGS[0], FLAGS[1], str(SOURCES / "nvml_header.h")])
    declared = declared_functions(preprocessed)
    gone = sorted({name for driver in drivers for name in driver.names}.difference(declared))
    return "".join([f"UNSUPPORTED({name})\n" for name in declared] + [f"UNDECLARED({name})\n" for name in gone])


def compile_library(
    output: Path,
    *,
    header_folder: Path | None = None,
    flags: Sequence[str] = (),
    drivers: Sequence[Driver] = (),
) -> Path:
    """Compiles the simulator to ``output``, put in place whole, and answers ``output``.

    ``flags`` are added to the compiler's (``-fsanitize=address``, say). Each of ``drivers`` gets a library of its
    own, see ``Driver.output``. Raises CannotBuildError.
    """
    compiler = find_compiler()
    include = f"-I{header_folder or find_header_folder()}"
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as folder:
        scratch = Path(folder)
        (scratch / "unsupported.inc").write_text(_stubs(compiler, include, read_drivers()))
        command = [compiler, *FLAGS, include, f"-I{scratch}", *flags]
        link = [compiler, "-shared", f"-Wl,-soname,{LIBRARY_NAME}", "-Wl,-z,defs", *flags]
        objects = _compile(sorted(SOURCES.glob("*.c")), scratch, command)
        drafts = {output: scratch / LIBRARY_NAME}
        _run([*link, "-o", str(drafts[output]), *objects, "-lpthread", "-lm"])
        common = [made for made in objects if Path(made).name != "driver.o"]
        for driver in drivers:
            own, script = scratch / f"driver-{driver.branch}.o", scratch / f"exports-{driver.branch}"
            draft = drafts[driver.output(output)] = scratch / f"{LIBRARY_NAME}-{driver.branch}"
            script.write_text(driver.exports())
            _run([*command, *driver.flags(), "-c", "-o", str(own), str(SOURCES / "driver.c")])
            scripted = f"-Wl,--version-script={script}"
            _run([*link, scripted, "-o", str(draft), *common, str(own), "-lpthread", "-lm"])
        for place, draft in drafts.items():
            place.parent.mkdir(exist_ok=True)
            draft.replace(place)
    return output


def compile_in_tree() -> tuple[Path, ...]:
    """Compiles into the source tree, for every driver; answers what is there now. Raises CannotBuildError."""
    drivers = read_drivers()
    compile_library(IN_TREE, drivers=drivers)
    return IN_TREE, *(driver.output(IN_TREE) for driver in drivers)


def refresh_in_tree() -> Path:
    """Compiles into the source tree unless what is there is newer than every source. Raises CannotBuildError."""
    sources = [Path(__file__), *SOURCES.glob("*.[ch]"), *SOURCES.glob("names-*.txt")]
    newest = max(source.stat().st_mtime for source in sources)
    outputs = [IN_TREE, *(driver.output(IN_TREE) for driver in read_drivers())]
    if not all(output.is_file() and output.stat().st_mtime > newest for output in outputs):
        compile_in_tree()
    return IN_TREE


class SimulatorBuildHook(BuildHookInterface):  # type: ignore[misc,unused-ignore]  # hatchling carries no types here
    """Puts the library into wheels, and into the source tree for editable installations."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        try:
            made = compile_in_tree()
        except CannotBuildError as error:
            if os.environ.get("WATTKEEPER_REQUIRE_SIMULATOR"):
                raise
            for stale in (IN_TREE, *IN_TREE.parent.glob(f"driver-*/{LIBRARY_NAME}")):
                stale.unlink(missing_ok=True)  # one of another source would be worse than none
            self.app.display_warning(
                f"wattkeeper: the simulated GPUs were not built: {error}\n"
                "Everything but `wattkeeper sim` and `wattkeeper demo` works. "
                "Mend that and install again to have them."
            )
            return
        if version != "editable":
            for path in made:
                place = path.relative_to(IN_TREE.parent).as_posix()
                build_data["force_include"][str(path)] = f"wattkeeper/simulator/lib/{place}"
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"


def main() -> int:
    try:
        print(*compile_in_tree(), sep="\n")
    except CannotBuildError as error:
        print(f"build_simulator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
