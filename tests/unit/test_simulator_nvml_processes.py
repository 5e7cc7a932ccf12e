"""Processes and MIG instances on simulated GPUs, as NVML's clients see them."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pynvml as n
import pytest
from tests.unit.nvml_here import (
    FUTURE_US,
    INSUFFICIENT_SIZE,
    NO_INSTANCE,
    SUCCESS,
    Opener,
    client_here,
    code,
    gpu,
    lacking,
    raw,
)
from tests.unit.simulated import INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, VERSION_MISMATCH

from wattkeeper.simulator import Process
from wattkeeper.simulator.models import Lack

ALIVE, INIT = os.getpid(), 1


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    with client_here(tmp_path, monkeypatch) as create:
        yield create


def test_processes_are_listed_with_their_memory_and_without_mig_ids(opened: Opener) -> None:
    opened(gpus=2).set_processes(0, [Process(pid=ALIVE, memory_mib=2_000), Process(pid=INIT, memory_mib=500)])
    for function in (n.nvmlDeviceGetComputeRunningProcesses_v2, n.nvmlDeviceGetComputeRunningProcesses_v3):
        first, second = function(gpu())
        assert (first.pid, first.usedGpuMemory) == (ALIVE, 2_000 << 20)
        assert (second.pid, second.usedGpuMemory) == (INIT, 500 << 20)
        assert (first.gpuInstanceId, first.computeInstanceId) == (NO_INSTANCE, NO_INSTANCE)
        assert function(gpu(1)) == []
    assert n.nvmlDeviceGetGraphicsRunningProcesses_v3(gpu()) == []
    assert n.nvmlDeviceGetMPSComputeRunningProcesses_v3(gpu()) == []


def test_memory_in_use_is_that_of_the_processes(opened: Opener) -> None:
    simulation = opened(gpus=1)
    reserved = n.nvmlDeviceGetMemoryInfo(gpu(), version=n.nvmlMemory_v2).reserved
    simulation.set_processes(0, [Process(pid=ALIVE, memory_mib=2_000), Process(pid=INIT, memory_mib=500)])
    new = n.nvmlDeviceGetMemoryInfo(gpu(), version=n.nvmlMemory_v2)
    assert (new.total, new.used, new.reserved) == (81_559 << 20, 2_500 << 20, reserved)
    assert new.free == new.total - new.used - new.reserved
    old = n.nvmlDeviceGetMemoryInfo(gpu())
    assert (old.total, old.used, old.free) == (new.total, new.used + new.reserved, new.free)
    simulation.set_processes(0, [Process(pid=ALIVE, memory_mib=80_000), Process(pid=INIT, memory_mib=80_000)])
    assert n.nvmlDeviceGetMemoryInfo(gpu()).free == 0  # no more is in use than there is


def test_a_process_that_has_ended_is_gone_unless_it_need_not_live(opened: Opener) -> None:
    simulation = opened(gpus=1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        members = [Process(pid=child.pid, memory_mib=7), Process(pid=child.pid, memory_mib=9, lives=False)]
        simulation.set_processes(0, members)
        assert [one.usedGpuMemory >> 20 for one in n.nvmlDeviceGetComputeRunningProcesses(gpu())] == [7, 9]
        child.communicate(b"\n")
        assert [one.usedGpuMemory >> 20 for one in n.nvmlDeviceGetComputeRunningProcesses(gpu())] == [9]
        assert n.nvmlDeviceGetMemoryInfo(gpu(), version=n.nvmlMemory_v2).used == 9 << 20


@pytest.mark.parametrize("version", ["", "_v2", "_v3"])
def test_too_little_room_for_processes_tells_how_much_it_takes(opened: Opener, version: str) -> None:
    opened(gpus=1).set_processes(0, [Process(pid=pid, memory_mib=pid) for pid in (ALIVE, INIT)])
    function = getattr(raw(), f"nvmlDeviceGetComputeRunningProcesses{version}")
    width = 16 if version == "" else 24
    count, room = ctypes.c_uint(0), ctypes.create_string_buffer(b"\xaa" * (3 * width), 3 * width)
    assert (function(gpu(), ctypes.byref(count), None), count.value) == (INSUFFICIENT_SIZE, 2)
    count.value = 1
    assert (function(gpu(), ctypes.byref(count), room), count.value) == (INSUFFICIENT_SIZE, 2)
    assert room.raw == b"\xaa" * (3 * width)
    count.value = 3
    assert (function(gpu(), ctypes.byref(count), room), count.value) == (SUCCESS, 2)
    assert room.raw[2 * width :] == b"\xaa" * width  # what was not asked for stays
    assert function(gpu(), ctypes.byref(count), None) == INVALID_ARGUMENT
    assert function(gpu(), None, None) == INVALID_ARGUMENT
    assert function(None, ctypes.byref(count), room) == INVALID_ARGUMENT


def test_the_share_of_each_process_in_the_use_of_the_gpu(opened: Opener) -> None:
    simulation = opened(gpus=1)
    simulation.load(0, 0.8)
    simulation.set_processes(0, [Process(pid=ALIVE, use=0.75), Process(pid=INIT, use=0.25), Process(pid=2, use=0.0)])
    samples = n.nvmlDeviceGetProcessUtilization(gpu(), 0)
    assert {one.pid: one.smUtil for one in samples} == {ALIVE: 60, INIT: 20}  # who did nothing is left out
    assert all(abs(time.time() - one.timeStamp / 1e6) < 5 for one in samples)
    assert code(n.nvmlDeviceGetProcessUtilization, gpu(), FUTURE_US) == NOT_FOUND
    assert code(n.nvmlDeviceGetProcessUtilization, gpu(), max(one.timeStamp for one in samples) + 10**8) == NOT_FOUND
    simulation.load(0, 0.0)
    assert code(n.nvmlDeviceGetProcessUtilization, gpu(), 0) == NOT_FOUND


def test_too_little_room_for_samples_of_use(opened: Opener) -> None:
    simulation = opened(gpus=1)
    simulation.load(0, 1.0)
    simulation.set_processes(0, [Process(pid=ALIVE, use=0.5), Process(pid=INIT, use=0.5)])
    function, now = raw().nvmlDeviceGetProcessUtilization, ctypes.c_ulonglong(0)
    count, room = ctypes.c_uint(1), (n.c_nvmlProcessUtilizationSample_t * 2)()
    assert (function(gpu(), None, ctypes.byref(count), now), count.value) == (INSUFFICIENT_SIZE, 2)
    count.value = 1
    assert (function(gpu(), room, ctypes.byref(count), now), count.value) == (INSUFFICIENT_SIZE, 2)
    assert (function(gpu(), room, ctypes.byref(count), now), room[1].smUtil) == (SUCCESS, 50)
    assert function(gpu(), room, None, now) == INVALID_ARGUMENT


class Utilizations(ctypes.Structure):
    """``nvmlProcessesUtilizationInfo_v1_t``."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("count", ctypes.c_uint),
        ("last_seen", ctypes.c_ulonglong),
        ("array", ctypes.c_void_p),
    )


def test_the_newer_call_for_the_use_of_processes(opened: Opener) -> None:
    simulation = opened(gpus=1)
    simulation.load(0, 1.0)
    simulation.set_processes(0, [Process(pid=ALIVE, use=0.5)])
    function, room = raw().nvmlDeviceGetProcessesUtilizationInfo, ctypes.create_string_buffer(40)
    asked = Utilizations(version=ctypes.sizeof(Utilizations) | 1 << 24)
    assert (function(gpu(), ctypes.byref(asked)), asked.count) == (INSUFFICIENT_SIZE, 1)
    asked.array = ctypes.addressof(room)
    assert function(gpu(), ctypes.byref(asked)) == SUCCESS
    assert int.from_bytes(room.raw[8:12], "little") == ALIVE
    assert int.from_bytes(room.raw[12:16], "little") == 50
    asked.version = 1
    assert function(gpu(), ctypes.byref(asked)) == VERSION_MISMATCH
    assert function(gpu(), None) == INVALID_ARGUMENT


def test_a_board_may_not_account_for_use(opened: Opener) -> None:
    simulation = opened(lacking(Lack.ACCOUNTED_USE), gpus=1)
    simulation.load(0, 1.0)
    simulation.set_processes(0, [Process(pid=ALIVE)])
    assert code(n.nvmlDeviceGetProcessUtilization, gpu(), 0) == NOT_SUPPORTED
    assert len(n.nvmlDeviceGetComputeRunningProcesses(gpu())) == 1


def test_the_detailed_list_of_hopper_and_later(opened: Opener) -> None:
    simulation = opened("H100,V100")
    simulation.set_processes(0, [Process(pid=ALIVE, memory_mib=3)])
    listed = n.nvmlDeviceGetRunningProcessDetailList(gpu(0), n.nvmlProcessDetailList_v1, n.NVML_PROCESS_MODE_COMPUTE)
    assert [(one.pid, one.usedGpuMemory) for one in listed] == [(ALIVE, 3 << 20)]
    ask = n.nvmlDeviceGetRunningProcessDetailList
    assert list(ask(gpu(0), n.nvmlProcessDetailList_v1, n.NVML_PROCESS_MODE_GRAPHICS)) == []
    assert code(ask, gpu(1), n.nvmlProcessDetailList_v1, n.NVML_PROCESS_MODE_COMPUTE) == NOT_SUPPORTED
    assert code(ask, gpu(0), n.nvmlProcessDetailList_v1, 4) == INVALID_ARGUMENT
    assert code(ask, gpu(0), 1, n.NVML_PROCESS_MODE_COMPUTE) == INVALID_ARGUMENT
    assert raw().nvmlDeviceGetRunningProcessDetailList(gpu(0), None) == INVALID_ARGUMENT


def test_the_name_of_a_process(opened: Opener) -> None:
    opened(gpus=1)
    told = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0]
    assert n.nvmlSystemGetProcessName(ALIVE) == told.decode()
    room = ctypes.create_string_buffer(b"\xaa" * 8, 8)
    assert raw().nvmlSystemGetProcessName(ALIVE, room, 4) == SUCCESS
    assert room.raw == told[:3] + b"\0" + b"\xaa" * 4  # cropped
    assert code(n.nvmlSystemGetProcessName, 2**22 + 1) == NOT_FOUND
    assert raw().nvmlSystemGetProcessName(ALIVE, None, 8) == INVALID_ARGUMENT
    assert raw().nvmlSystemGetProcessName(ALIVE, room, 0) == INVALID_ARGUMENT


def test_a_gpu_in_mig_mode_has_handles_for_its_instances(opened: Opener) -> None:
    simulation = opened(gpus=2)
    assert n.nvmlDeviceGetMigMode(gpu()) == [0, 0]
    assert n.nvmlDeviceGetMaxMigDeviceCount(gpu()) == 0
    assert code(n.nvmlDeviceGetMigDeviceHandleByIndex, gpu(), 0) == NOT_FOUND
    simulation.set_mig(0, ["3g.40gb", "1g.10gb"])
    truth = simulation.gpu(0)
    assert n.nvmlDeviceGetMigMode(gpu()) == [1, 1]
    assert n.nvmlDeviceGetMaxMigDeviceCount(gpu()) == 7
    assert n.nvmlDeviceIsMigDeviceHandle(gpu()).value == 0
    ids = set()
    for index, instance in enumerate(truth.mig):
        handle = n.nvmlDeviceGetMigDeviceHandleByIndex(gpu(), index)
        assert n.nvmlDeviceIsMigDeviceHandle(handle).value == 1
        assert n.nvmlDeviceGetUUID(handle) == instance.uuid
        assert n.nvmlDeviceGetIndex(handle) == index
        assert n.nvmlDeviceGetUUID(n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)) == truth.uuid
        assert n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByUUID(instance.uuid)) == instance.uuid
        assert n.nvmlDeviceGetMemoryInfo(handle).total == instance.memory_mib << 20
        attributes = n.nvmlDeviceGetAttributes_v2(handle)
        assert attributes.gpuInstanceSliceCount == instance.slices
        assert attributes.memorySizeMB == instance.memory_mib
        ids.add((n.nvmlDeviceGetGpuInstanceId(handle), n.nvmlDeviceGetComputeInstanceId(handle)))
    assert ids == {(1, 0), (2, 0)}
    assert code(n.nvmlDeviceGetMigDeviceHandleByIndex, gpu(), 2) == NOT_FOUND
    assert code(n.nvmlDeviceGetHandleByUUID, "MIG-00000000-0000-0000-0000-000000000000") == NOT_FOUND


@pytest.mark.parametrize(
    ("model", "profile"),
    [
        ("A100-SXM4-40GB", "1g.5gb"),
        ("A100-SXM4-40GB", "3g.20gb"),
        ("H100", "2g.20gb"),
        ("H100", "7g.80gb"),
        ("H200", "1g.18gb"),
        ("H200", "3g.71gb"),
        ("GH200", "1g.12gb"),
        ("B200", "1g.23gb"),
    ],
)
def test_instances_bear_nvidias_names(opened: Opener, model: str, profile: str) -> None:
    simulation = opened(model, gpus=1)
    simulation.set_mig(0, [profile])
    name = n.nvmlDeviceGetName(n.nvmlDeviceGetMigDeviceHandleByIndex(gpu(), 0))
    assert name == f"{simulation.gpu(0).name} MIG {profile}"


def test_an_instance_has_processes_and_memory_of_its_own_and_the_gpus_power(opened: Opener) -> None:
    simulation = opened(gpus=1)
    simulation.set_mig(0, ["3g.40gb", "1g.10gb"])
    simulation.load(0, 0.5)
    members = [Process(pid=ALIVE, memory_mib=900, instance=0), Process(pid=INIT, memory_mib=50, instance=1)]
    simulation.set_processes(0, members)
    first, second = (n.nvmlDeviceGetMigDeviceHandleByIndex(gpu(), index) for index in (0, 1))
    (mine,) = n.nvmlDeviceGetComputeRunningProcesses(first)
    assert (mine.pid, mine.gpuInstanceId, mine.computeInstanceId) == (ALIVE, 1, 0)
    assert [one.gpuInstanceId for one in n.nvmlDeviceGetComputeRunningProcesses(gpu())] == [1, 2]
    assert n.nvmlDeviceGetMemoryInfo(second).used == 50 << 20
    assert n.nvmlDeviceGetMemoryInfo(gpu(), version=n.nvmlMemory_v2).used == 950 << 20
    assert n.nvmlDeviceGetPowerUsage(first) == n.nvmlDeviceGetPowerUsage(gpu()) == simulation.gpu(0).sensed_mw
    windows = [n.nvmlDeviceGetBAR1MemoryInfo(handle).bar1Total >> 30 for handle in (gpu(), first, second)]
    assert windows == [128, 64, 16]


OF_THE_WHOLE_ALONE = (
    n.nvmlDeviceGetPowerManagementLimit,
    n.nvmlDeviceGetPowerManagementDefaultLimit,
    n.nvmlDeviceGetPowerManagementLimitConstraints,
    n.nvmlDeviceGetEnforcedPowerLimit,
    n.nvmlDeviceGetTotalEnergyConsumption,
    n.nvmlDeviceGetUtilizationRates,
    n.nvmlDeviceGetMigMode,
    n.nvmlDeviceGetMinorNumber,
)


def test_an_instance_has_no_limit_energy_or_use(opened: Opener) -> None:
    opened(gpus=1).set_mig(0, ["1g.10gb"])
    handle = n.nvmlDeviceGetMigDeviceHandleByIndex(gpu(), 0)
    for function in OF_THE_WHOLE_ALONE:
        assert code(function, handle) == NOT_SUPPORTED, function.__name__
    assert code(n.nvmlDeviceSetPowerManagementLimit, handle, 300_000) == NOT_SUPPORTED
    assert code(n.nvmlDeviceGetMigDeviceHandleByIndex, handle, 0) == NOT_SUPPORTED


def test_nvml_has_no_use_of_a_gpu_in_mig_mode(opened: Opener) -> None:
    simulation = opened(gpus=1)
    simulation.set_mig(0, ["1g.10gb"])
    simulation.load(0, 1.0)
    simulation.set_processes(0, [Process(pid=ALIVE, instance=0)])
    for function in (
        n.nvmlDeviceGetUtilizationRates,
        n.nvmlDeviceGetEncoderUtilization,
        n.nvmlDeviceGetDecoderUtilization,
    ):
        assert code(function, gpu()) == NOT_SUPPORTED
    assert code(n.nvmlDeviceGetProcessUtilization, gpu(), 0) == NOT_SUPPORTED
    assert code(n.nvmlDeviceGetSamples, gpu(), n.NVML_GPU_UTILIZATION_SAMPLES, 0) == NOT_SUPPORTED


def test_what_concerns_an_instance_alone_refuses_a_gpu(opened: Opener) -> None:
    opened("H100,V100")
    for function in (
        n.nvmlDeviceGetGpuInstanceId,
        n.nvmlDeviceGetComputeInstanceId,
        n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle,
    ):
        assert code(function, gpu()) == INVALID_ARGUMENT
    assert code(n.nvmlDeviceGetAttributes_v2, gpu()) == NOT_SUPPORTED
    assert code(n.nvmlDeviceGetMigMode, gpu(1)) == NOT_SUPPORTED
    assert code(n.nvmlDeviceGetMigDeviceHandleByIndex, gpu(1), 0) == NOT_SUPPORTED
    assert n.nvmlDeviceGetMaxMigDeviceCount(gpu(1)) == 0


def test_a_handle_of_an_instance_that_is_gone_is_no_handle(opened: Opener) -> None:
    simulation = opened(gpus=1)
    simulation.set_mig(0, ["1g.10gb", "1g.10gb"])
    handle = n.nvmlDeviceGetMigDeviceHandleByIndex(gpu(), 1)
    simulation.set_mig(0, [])
    assert code(n.nvmlDeviceGetUUID, handle) == INVALID_ARGUMENT
    assert code(n.nvmlDeviceGetMemoryInfo, handle) == INVALID_ARGUMENT
