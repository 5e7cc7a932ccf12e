"""How the simulated library is built, and what happens where it cannot be."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import build_simulator
from build_simulator import CannotBuildError, SimulatorBuildHook, compile_library, declared_functions
from wattkeeper.simulator import SimulatorError, library

HEADERS = Path(__file__).parents[2] / ".venv" / "nvml-headers"  # see .ci/setup


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("lib") / "libnvidia-ml.so.1")


def test_every_function_of_the_header_is_there(built: Path) -> None:
    header = build_simulator.find_header_folder() / "nvml.h"
    command = [build_simulator.find_compiler(), "-E", "-DNVML_NO_UNVERSIONED_FUNC_DEFS", str(header)]
    names = declared_functions(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(names) > 300
    assert {"nvmlInit", "nvmlInit_v2", "nvmlErrorString", "nvmlGpmSampleFree"} <= set(names)
    loaded = ctypes.CDLL(str(built))
    assert [name for name in names if not hasattr(loaded, name)] == []
    assert not hasattr(loaded, "wk_read")  # what is inside stays inside


@pytest.mark.parametrize("version", ["12.9.79", "12.0.140", "11.8.86"])
def test_it_compiles_against_older_headers_and_has_all_that_newer_ones_declare(tmp_path: Path, version: str) -> None:
    folder = HEADERS / version
    if not (folder / "nvml.h").is_file():
        pytest.skip(f"no nvml.h {version} (.ci/setup downloads it)")
    older = compile_library(tmp_path / "libnvidia-ml.so.1", header_folder=folder)
    assert {"nvmlDeviceSetPowerManagementLimit_v2", "nvmlDeviceGetCurrentClocksEventReasons"} <= exported(older)


def exported(path: Path) -> set[str]:
    """The functions that a library shows."""
    command = [shutil.which("nm") or "nm", "-D", "--defined-only", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.split()[2] for line in done.stdout.splitlines()}


def test_an_older_drivers_library_has_its_functions_and_the_controls_alone(tmp_path: Path) -> None:
    drivers = build_simulator.read_drivers()
    assert [driver.branch for driver in drivers] == ["515", "525", "535", "550"]
    newest = compile_library(tmp_path / "lib" / "libnvidia-ml.so.1", drivers=drivers)
    controls = {name for name in exported(newest) if name.startswith("wk_sim_")}
    assert {"wk_sim_create", "wk_sim_act"} <= controls
    for driver in drivers:
        assert exported(driver.output(newest)) == {*driver.names, *controls}
        assert exported(driver.output(newest)) < exported(newest)
        before = set(drivers[0].names)
        assert len(before - set(driver.names)) <= 5  # drivers hardly ever drop a name


def test_a_list_of_names_has_to_say_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "names-470.txt").write_text("# somebody's nvml.h\nnvmlInit\n")
    monkeypatch.setattr(build_simulator, "SOURCES", tmp_path)
    with pytest.raises(CannotBuildError, match=r"names-470\.txt: its first line"):
        build_simulator.read_drivers()


def test_declarations_are_told_from_all_else() -> None:
    text = """# 1 "nvml.h"
typedef struct { int nvmlNotThis; } nvmlStruct_t;
typedef int (*nvmlCallback_t)(int);
static inline int nvmlInlined(int a) { return nvmlCalled(a); }
int __attribute__((deprecated)) nvmlOne(void);
const char* nvmlTwo (int
    a, struct nvmlStruct_st *b);
"""
    assert declared_functions(text) == ["nvmlOne", "nvmlTwo"]


def test_a_wrong_prototype_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for source in (*build_simulator.SOURCES.glob("*.[ch]"), *build_simulator.SOURCES.glob("names-*.txt")):
        text = source.read_text()
        if source.name == "exports_power.c":
            text = text.replace("unsigned long long *energy", "unsigned int *energy")
        (sources / source.name).write_text(text)
    monkeypatch.setattr(build_simulator, "SOURCES", sources)
    with pytest.raises(CannotBuildError, match="nvmlDeviceGetTotalEnergyConsumption"):
        compile_library(tmp_path / "out" / "libnvidia-ml.so.1")
    assert list((tmp_path / "out").iterdir()) == []


class Hook(SimulatorBuildHook):  # type: ignore[misc,unused-ignore]  # its base has no types
    """The hook as hatchling drives it, without hatchling."""

    def __init__(self) -> None:
        self.told: list[str] = []

    target_name = "wheel"

    @property
    def app(self) -> Any:
        return SimpleNamespace(display_warning=self.told.append)


def test_a_wheel_gets_the_library_and_its_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "libnvidia-ml.so.1"
    monkeypatch.setattr(build_simulator, "IN_TREE", output)
    data: dict[str, Any] = {"force_include": {}}
    Hook().initialize("standard", data)
    places = data["force_include"]
    assert places[str(output)] == "wattkeeper/simulator/lib/libnvidia-ml.so.1"
    older = str(tmp_path / "driver-525" / "libnvidia-ml.so.1")
    assert places[older] == "wattkeeper/simulator/lib/driver-525/libnvidia-ml.so.1"
    assert all(Path(path).is_file() for path in places)
    assert data["tag"].startswith("py3-none-linux_")
    assert data["pure_python"] is False


def test_without_a_compiler_the_installation_succeeds_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_simulator, "IN_TREE", tmp_path / "libnvidia-ml.so.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    hook = Hook()
    data: dict[str, Any] = {"force_include": {}}
    hook.initialize("standard", data)
    assert data == {"force_include": {}}
    (text,) = hook.told
    assert "simulated GPUs were not built" in text
    assert "apt install gcc" in text
    monkeypatch.setenv("WATTKEEPER_REQUIRE_SIMULATOR", "1")
    with pytest.raises(CannotBuildError):
        hook.initialize("standard", data)


def test_a_library_that_is_not_there_is_an_error_with_a_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    with pytest.raises(SimulatorError, match=r"install a C compiler.*build_simulator\.py"):
        library.find_library()
