"""Events and samples of simulated GPUs, as NVML's clients get them."""

import ctypes
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pynvml as n
import pytest
from tests.unit.nvml_here import FUTURE_US, MEMORY, NO_INSTANCE, SUCCESS, TIMEOUT, Opener, client_here, code, gpu, raw
from tests.unit.simulated import GPU_IS_LOST, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, UNINITIALIZED

XID = 8


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    with client_here(tmp_path, monkeypatch) as create:
        yield create


def wait(events: Any, timeout_ms: int = 0) -> tuple[str, int] | int:
    """The GPU and the XID of the next event, or the error."""
    try:
        event = n.nvmlEventSetWait_v2(events, timeout_ms)
    except n.NVMLError as error:
        return int(error.value)
    assert (event.eventType, event.gpuInstanceId, event.computeInstanceId) == (XID, NO_INSTANCE, NO_INSTANCE)
    return n.nvmlDeviceGetUUID(event.device), event.eventData


def test_xids_arrive_in_order_and_once_for_each_set(opened: Opener) -> None:
    simulation = opened(gpus=2)
    uuids = [one.uuid for one in simulation.show().gpus]
    assert n.nvmlDeviceGetSupportedEventTypes(gpu()) & XID
    one, other = n.nvmlEventSetCreate(), n.nvmlEventSetCreate()
    assert wait(one) == TIMEOUT
    simulation.raise_xid(0, 31)  # before anybody registered
    for index in (0, 1):
        n.nvmlDeviceRegisterEvents(gpu(index), XID, one)
    n.nvmlDeviceRegisterEvents(gpu(1), XID, other)
    assert wait(one) == TIMEOUT
    for minor, xid in ((0, 48), (0, 79), (1, 63)):
        simulation.raise_xid(minor, xid)
    n.nvmlDeviceRegisterEvents(gpu(0), XID, one)  # once more makes no difference
    assert [wait(one) for _ in range(4)] == [(uuids[0], 48), (uuids[0], 79), (uuids[1], 63), TIMEOUT]
    assert [wait(other) for _ in range(2)] == [(uuids[1], 63), TIMEOUT]
    n.nvmlEventSetFree(one)
    n.nvmlEventSetFree(other)


def test_of_too_many_xids_the_latest_arrive(opened: Opener) -> None:
    simulation = opened(gpus=1)
    events = n.nvmlEventSetCreate()
    n.nvmlDeviceRegisterEvents(gpu(), XID, events)
    for xid in range(1, 21):
        simulation.raise_xid(0, xid)
    uuid = simulation.gpu(0).uuid
    assert [wait(events) for _ in range(9)] == [*((uuid, xid) for xid in range(13, 21)), TIMEOUT]


def test_waiting_ends_soon_after_an_event_and_not_before_the_timeout(opened: Opener) -> None:
    simulation = opened(gpus=1)
    events = n.nvmlEventSetCreate()
    n.nvmlDeviceRegisterEvents(gpu(), XID, events)
    start = time.monotonic()
    assert wait(events, 200) == TIMEOUT
    assert 0.2 <= time.monotonic() - start < 5
    start = time.monotonic()
    threading.Timer(0.1, simulation.raise_xid, (0, 62)).start()
    assert wait(events, 30_000) == (simulation.gpu(0).uuid, 62)
    assert 0.1 <= time.monotonic() - start < 5


def test_waiting_ends_when_a_gpu_is_lost_or_the_set_is_freed(opened: Opener) -> None:
    simulation = opened(gpus=2)
    events = n.nvmlEventSetCreate()
    for index in (0, 1):
        n.nvmlDeviceRegisterEvents(gpu(index), XID, events)
    threading.Timer(0.1, simulation.fault, (1, "lost")).start()
    assert wait(events, 30_000) == GPU_IS_LOST
    simulation.clear_fault(1)
    threading.Timer(0.1, n.nvmlEventSetFree, (events,)).start()
    assert wait(events, 30_000) == INVALID_ARGUMENT


def test_the_old_call_leaves_what_its_struct_lacks(opened: Opener) -> None:
    simulation = opened(gpus=1)
    events = n.nvmlEventSetCreate()
    n.nvmlDeviceRegisterEvents(gpu(), XID, events)
    simulation.raise_xid(0, 94)
    room = ctypes.create_string_buffer(b"\xaa" * 32, 32)
    assert raw().nvmlEventSetWait(events, room, 0) == SUCCESS
    assert int.from_bytes(room.raw[8:16], "little") == XID
    assert int.from_bytes(room.raw[16:24], "little") == 94
    assert room.raw[24:] == b"\xaa" * 8


def test_event_sets_take_no_nonsense(opened: Opener) -> None:
    simulation = opened("H100,RTX3090")
    events = n.nvmlEventSetCreate()
    supported = n.nvmlDeviceGetSupportedEventTypes(gpu())
    assert code(n.nvmlDeviceRegisterEvents, gpu(), 0, events) == INVALID_ARGUMENT
    assert code(n.nvmlDeviceRegisterEvents, gpu(), 1 << 60, events) == INVALID_ARGUMENT
    assert code(n.nvmlDeviceRegisterEvents, gpu(), n.nvmlEventTypePState, events) == NOT_SUPPORTED
    assert supported == n.nvmlDeviceGetSupportedEventTypes(gpu(1)) | 3  # a board without ECC has none of its events
    n.nvmlDeviceRegisterEvents(gpu(), supported, events)
    room = ctypes.create_string_buffer(32)
    inside = ctypes.c_void_p(ctypes.cast(events, ctypes.c_void_p).value or 0)
    inside.value = (inside.value or 0) + 8
    for bad in (None, ctypes.c_void_p(8), inside, ctypes.byref(room)):
        assert raw().nvmlDeviceRegisterEvents(gpu(), ctypes.c_ulonglong(XID), bad) == INVALID_ARGUMENT
        assert raw().nvmlEventSetWait_v2(bad, room, 0) == INVALID_ARGUMENT
        assert raw().nvmlEventSetFree(bad) == INVALID_ARGUMENT
    assert raw().nvmlEventSetWait_v2(events, None, 0) == INVALID_ARGUMENT
    assert raw().nvmlEventSetWait(events, None, 0) == INVALID_ARGUMENT
    assert raw().nvmlEventSetCreate(None) == INVALID_ARGUMENT
    n.nvmlEventSetFree(events)
    assert wait(events) == INVALID_ARGUMENT
    simulation.set_mig(0, ["1g.10gb"])
    mine = n.nvmlEventSetCreate()
    instance = n.nvmlDeviceGetMigDeviceHandleByIndex(gpu(), 0)
    assert code(n.nvmlDeviceRegisterEvents, instance, XID, mine) == NOT_SUPPORTED


def test_there_are_so_many_event_sets_and_a_new_session_has_them_all(opened: Opener) -> None:
    opened(gpus=1)
    for _ in range(2):
        made = [n.nvmlEventSetCreate() for _ in range(64)]
        assert code(n.nvmlEventSetCreate) == MEMORY
        n.nvmlShutdown()
        assert wait(made[0]) == UNINITIALIZED
        n.nvmlInit()
        assert wait(made[0]) == INVALID_ARGUMENT


def samples(kind: int, since_us: int = 0) -> list[tuple[int, int]]:
    _, found = n.nvmlDeviceGetSamples(gpu(), kind, since_us)
    return [(one.timeStamp, one.sampleValue.uiVal) for one in found]


def test_samples_of_power_are_of_the_last_second(opened: Opener) -> None:
    simulation = opened(gpus=1)
    simulation.advance(5)
    simulation.load(0, 0.5)
    simulation.advance(0.4)
    found = samples(n.NVML_TOTAL_POWER_SAMPLES)
    assert [later[0] - earlier[0] for earlier, later in pairwise(found)] == [20_000] * 49
    assert abs(found[-1][0] / 1e6 - time.time()) < 5
    idle, busy = simulation.gpu(0).idle_mw, simulation.gpu(0).power_mw
    assert [value for _, value in found[:30]] == pytest.approx([idle] * 30, abs=100)
    assert [value for _, value in found[34:]] == pytest.approx([busy] * 16, abs=100)  # after the spike of a start


def test_samples_come_at_the_sensors_pace_and_from_the_oldest_unseen_on(opened: Opener) -> None:
    opened("H100", gpus=1, sensors="card").advance(5)
    found = samples(n.NVML_TOTAL_POWER_SAMPLES)
    assert len(found) == 10  # every 100 ms
    later = samples(n.NVML_TOTAL_POWER_SAMPLES, found[6][0])
    assert 3 <= len(later) <= 10  # the GPUs' clock stands, and the stamps move on with the real one
    assert code(n.nvmlDeviceGetSamples, gpu(), n.NVML_TOTAL_POWER_SAMPLES, FUTURE_US) == NOT_FOUND
    count, kind = ctypes.c_uint(2), ctypes.c_uint()
    room = (n.c_nvmlSample_t * 3)()
    arguments = (gpu(), n.NVML_TOTAL_POWER_SAMPLES, ctypes.c_ulonglong(0), ctypes.byref(kind))
    assert raw().nvmlDeviceGetSamples(*arguments, ctypes.byref(count), room) == SUCCESS
    assert (count.value, kind.value) == (2, n.NVML_VALUE_TYPE_UNSIGNED_INT)
    assert found[0][0] <= room[0].timeStamp <= samples(n.NVML_TOTAL_POWER_SAMPLES)[0][0]  # the oldest that there is
    assert room[2].timeStamp == 0
    count.value = 0
    assert raw().nvmlDeviceGetSamples(*arguments, ctypes.byref(count), room) == INVALID_ARGUMENT
    assert raw().nvmlDeviceGetSamples(*arguments, None, None) == INVALID_ARGUMENT
    assert (
        raw().nvmlDeviceGetSamples(gpu(), 0, ctypes.c_ulonglong(0), None, ctypes.byref(count), None) == INVALID_ARGUMENT
    )


def test_samples_of_use_and_clocks_reach_back_to_the_last_change(opened: Opener) -> None:
    simulation = opened(gpus=1)
    simulation.advance(5)
    simulation.load(0, 0.5)
    assert [value for _, value in samples(n.NVML_GPU_UTILIZATION_SAMPLES)] == [50]
    simulation.advance(0.2)
    assert {value for _, value in samples(n.NVML_GPU_UTILIZATION_SAMPLES)} == {50}
    assert {value for _, value in samples(n.NVML_PROCESSOR_CLK_SAMPLES)} == {1980}
    assert {value for _, value in samples(n.NVML_MEMORY_CLK_SAMPLES)} == {2619}
    assert code(n.nvmlDeviceGetSamples, gpu(), n.NVML_ENC_UTILIZATION_SAMPLES, 0) == NOT_SUPPORTED


def test_the_first_second_of_a_gpu_has_samples_too(opened: Opener) -> None:
    simulation = opened(gpus=1)
    assert code(n.nvmlDeviceGetSamples, gpu(), n.NVML_TOTAL_POWER_SAMPLES, 0) == NOT_FOUND
    simulation.advance(0.1)
    assert len(samples(n.NVML_TOTAL_POWER_SAMPLES)) == 5
    assert {value for _, value in samples(n.NVML_GPU_UTILIZATION_SAMPLES)} == {0}
