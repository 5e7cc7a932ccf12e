"""What NVML's clients may ask of simulated GPUs beside power, and what boards lack."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pynvml as n
import pytest
from tests.unit.nvml_here import IN_USE, INSUFFICIENT_SIZE, SUCCESS, Opener, client_here, code, gpu, lacking, raw
from tests.unit.simulated import INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED

from wattkeeper.simulator import find_model
from wattkeeper.simulator.models import Lack


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    with client_here(tmp_path, monkeypatch) as create:
        yield create


def test_a_board_without_limits_has_none_to_read_or_set(opened: Opener) -> None:
    simulation = opened(lacking(Lack.LIMIT), gpus=1)
    for function in (
        n.nvmlDeviceGetPowerManagementLimit,
        n.nvmlDeviceGetPowerManagementDefaultLimit,
        n.nvmlDeviceGetPowerManagementLimitConstraints,
        n.nvmlDeviceGetEnforcedPowerLimit,
        n.nvmlDeviceGetPowerManagementMode,
    ):
        assert code(function, gpu()) == NOT_SUPPORTED
    assert code(n.nvmlDeviceSetPowerManagementLimit, gpu(), 300_000) == NOT_SUPPORTED
    assert simulation.gpu(0).requested_mw == 700_000
    fields = n.nvmlDeviceGetFieldValues(gpu(), [185, 186, 187, 188, 189, 190, 191, 192])
    answers = [SUCCESS, SUCCESS, NOT_SUPPORTED, NOT_SUPPORTED, NOT_SUPPORTED, NOT_SUPPORTED, SUCCESS, NOT_SUPPORTED]
    assert [one.nvmlReturn for one in fields] == answers
    assert n.nvmlDeviceGetPowerUsage(gpu()) == simulation.gpu(0).sensed_mw


def test_ecc(opened: Opener) -> None:
    opened("H100,RTX3090")
    assert n.nvmlDeviceGetEccMode(gpu(0)) == [1, 1]
    errors = (n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, n.NVML_VOLATILE_ECC)
    assert n.nvmlDeviceGetTotalEccErrors(gpu(0), *errors) == 0
    assert n.nvmlDeviceGetMemoryErrorCounter(gpu(0), *errors, n.NVML_MEMORY_LOCATION_DRAM) == 0
    assert code(n.nvmlDeviceGetTotalEccErrors, gpu(0), 2, 0) == INVALID_ARGUMENT
    assert code(n.nvmlDeviceGetMemoryErrorCounter, gpu(0), 0, 0, 99) == INVALID_ARGUMENT
    assert code(n.nvmlDeviceGetEccMode, gpu(1)) == NOT_SUPPORTED
    assert code(n.nvmlDeviceGetTotalEccErrors, gpu(1), *errors) == NOT_SUPPORTED


def test_fans_turn_faster_when_it_is_hot(opened: Opener) -> None:
    simulation = opened("H100,RTX3090")
    assert code(n.nvmlDeviceGetFanSpeed, gpu(0)) == NOT_SUPPORTED
    assert code(n.nvmlDeviceGetNumFans, gpu(0)) == NOT_SUPPORTED
    cold = n.nvmlDeviceGetFanSpeed(gpu(1))
    simulation.load(1, 1.0)
    simulation.advance(600)
    assert 0 < cold < n.nvmlDeviceGetFanSpeed(gpu(1)) == n.nvmlDeviceGetFanSpeed_v2(gpu(1), 0) <= 100
    assert n.nvmlDeviceGetNumFans(gpu(1)) == 1
    assert code(n.nvmlDeviceGetFanSpeed_v2, gpu(1), 1) == INVALID_ARGUMENT


def test_clocks(opened: Opener) -> None:
    simulation = opened(gpus=1)
    simulation.load(0, 1.0)
    simulation.set_limit(0, find_model("H100").min_mw)  # type: ignore[arg-type]
    simulation.advance(60)
    held = simulation.gpu(0).clock_mhz
    assert held < 1980
    assert n.nvmlDeviceGetClockInfo(gpu(), n.NVML_CLOCK_SM) == held
    assert n.nvmlDeviceGetClock(gpu(), n.NVML_CLOCK_SM, n.NVML_CLOCK_ID_CURRENT) == held
    assert n.nvmlDeviceGetClock(gpu(), n.NVML_CLOCK_SM, n.NVML_CLOCK_ID_CUSTOMER_BOOST_MAX) == 1980
    assert n.nvmlDeviceGetMaxCustomerBoostClock(gpu(), n.NVML_CLOCK_SM) == 1980
    assert code(n.nvmlDeviceGetClock, gpu(), n.NVML_CLOCK_SM, n.NVML_CLOCK_ID_APP_CLOCK_TARGET) == NOT_SUPPORTED
    assert code(n.nvmlDeviceGetClock, gpu(), 9, n.NVML_CLOCK_ID_CURRENT) == INVALID_ARGUMENT
    assert n.nvmlDeviceGetSupportedMemoryClocks(gpu()) == [2619]
    supported = n.nvmlDeviceGetSupportedGraphicsClocks(gpu(), 2619)
    assert (supported[0], supported[-1], len(supported)) == (1980, 345, 110)
    assert code(n.nvmlDeviceGetSupportedGraphicsClocks, gpu(), 2600) == NOT_FOUND


def test_too_little_room_for_clocks(opened: Opener) -> None:
    opened(gpus=1)
    count, room = ctypes.c_uint(3), (ctypes.c_uint * 3)()
    asked = (gpu(), 2619, ctypes.byref(count))
    assert (raw().nvmlDeviceGetSupportedGraphicsClocks(*asked, room), count.value) == (INSUFFICIENT_SIZE, 110)
    assert list(room) == [0, 0, 0]
    assert raw().nvmlDeviceGetSupportedGraphicsClocks(*asked, None) == INSUFFICIENT_SIZE
    assert raw().nvmlDeviceGetSupportedGraphicsClocks(gpu(), 2619, None, room) == INVALID_ARGUMENT


def test_thresholds_of_temperature(opened: Opener) -> None:
    opened(gpus=1)
    model = find_model("H100")
    assert n.nvmlDeviceGetTemperatureThreshold(gpu(), n.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN) == model.slowdown_c
    assert n.nvmlDeviceGetTemperatureThreshold(gpu(), n.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN) == model.shutdown_c
    assert code(n.nvmlDeviceGetTemperatureThreshold, gpu(), n.NVML_TEMPERATURE_THRESHOLD_ACOUSTIC_MIN) == NOT_SUPPORTED
    assert code(n.nvmlDeviceGetTemperatureThreshold, gpu(), 99) == INVALID_ARGUMENT


def test_links(opened: Opener) -> None:
    opened("V100,A100,H100,GH200")
    assert [n.nvmlDeviceGetMaxPcieLinkGeneration(gpu(index)) for index in range(4)] == [3, 4, 5, 5]
    assert n.nvmlDeviceGetCurrPcieLinkGeneration(gpu(2)) == 5
    assert n.nvmlDeviceGetMaxPcieLinkWidth(gpu()) == n.nvmlDeviceGetCurrPcieLinkWidth(gpu()) == 16
    assert n.nvmlDeviceGetPcieThroughput(gpu(), n.NVML_PCIE_UTIL_TX_BYTES) == 0
    assert code(n.nvmlDeviceGetPcieThroughput, gpu(), 9) == INVALID_ARGUMENT
    assert code(n.nvmlDeviceGetC2cModeInfoV, gpu(0)) == NOT_SUPPORTED
    assert [n.nvmlDeviceGetC2cModeInfoV(gpu(index)).isC2cEnabled for index in (2, 3)] == [0, 1]


def test_persistence_mode_is_set(opened: Opener) -> None:
    simulation = opened(gpus=2)
    n.nvmlDeviceSetPersistenceMode(gpu(1), 0)
    assert [n.nvmlDeviceGetPersistenceMode(gpu(index)) for index in (0, 1)] == [1, 0]
    assert [one.persistence for one in simulation.show().gpus] == [True, False]
    assert code(n.nvmlDeviceSetPersistenceMode, gpu(), 2) == INVALID_ARGUMENT
    simulation.fault(1, "in-use")
    assert code(n.nvmlDeviceSetPersistenceMode, gpu(1), 1) == IN_USE
    simulation.clear_fault(1)
    simulation.fault(1, "ignored")
    n.nvmlDeviceSetPersistenceMode(gpu(1), 1)
    assert not simulation.gpu(1).persistence


def test_the_rest_that_monitors_ask(opened: Opener) -> None:
    opened(gpus=1)
    assert n.nvmlDeviceGetComputeMode(gpu()) == n.NVML_COMPUTEMODE_DEFAULT
    assert (n.nvmlDeviceGetDisplayMode(gpu()), n.nvmlDeviceGetDisplayActive(gpu())) == (0, 0)
    assert n.nvmlDeviceGetPowerState(gpu()) == n.nvmlDeviceGetPerformanceState(gpu()) == 0
    assert n.nvmlDeviceGetPowerSource(gpu()) == n.NVML_POWER_SOURCE_AC
    assert n.nvmlDeviceGetPcieReplayCounter(gpu()) == 0
    assert code(n.nvmlDeviceGetConfComputeMemSizeInfo, gpu()) == NOT_SUPPORTED
    assert n.nvmlDeviceGetEncoderUtilization(gpu())[0] == n.nvmlDeviceGetDecoderUtilization(gpu())[0] == 0


ONE_OUT = [
    "ComputeMode",
    "DisplayMode",
    "DisplayActive",
    "PowerSource",
    "PersistenceMode",
    "PowerManagementMode",
    "Index",
    "MinorNumber",
    "BoardId",
    "Brand",
    "Architecture",
    "MaxMigDeviceCount",
    "GpuInstanceId",
    "ComputeInstanceId",
    "Attributes",
    "Attributes_v2",
    "SupportedEventTypes",
    "FanSpeed",
    "NumFans",
    "UtilizationRates",
    "MemoryInfo",
    "MemoryInfo_v2",
    "BAR1MemoryInfo",
    "MaxPcieLinkGeneration",
    "CurrPcieLinkGeneration",
    "MaxPcieLinkWidth",
    "CurrPcieLinkWidth",
    "PcieReplayCounter",
    "PerformanceState",
    "PowerState",
    "TemperatureV",
    "C2cModeInfoV",
]


@pytest.mark.parametrize("name", ONE_OUT)
def test_no_function_writes_through_null_or_for_a_handle_that_is_none(opened: Opener, name: str) -> None:
    opened(gpus=1)
    function, room = getattr(raw(), f"nvmlDeviceGet{name}"), ctypes.create_string_buffer(b"\xaa" * 256, 256)
    assert function(gpu(), None) == INVALID_ARGUMENT
    for bad in (None, ctypes.c_void_p(1), ctypes.byref(room)):
        assert function(bad, room) == INVALID_ARGUMENT
    assert room.raw == b"\xaa" * 256


TWO_OUT = ["MigMode", "EccMode", "EncoderUtilization", "DecoderUtilization", "CudaComputeCapability"]


@pytest.mark.parametrize("name", TWO_OUT)
def test_neither_of_two_answers_may_be_null(opened: Opener, name: str) -> None:
    opened(gpus=1)
    function, room = getattr(raw(), f"nvmlDeviceGet{name}"), ctypes.c_uint(77)
    assert function(gpu(), ctypes.byref(room), None) == INVALID_ARGUMENT
    assert function(gpu(), None, ctypes.byref(room)) == INVALID_ARGUMENT
    assert room.value == 77
