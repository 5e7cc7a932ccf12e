"""The simulated library as an NVML client meets it: through the real pynvml, in a process of its own."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.simulated import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    INVALID_ARGUMENT,
    NO_PERMISSION,
    NOT_FOUND,
    NOT_SUPPORTED,
    PRELUDE,
    UNINITIALIZED,
    UNKNOWN,
    VERSION_MISMATCH,
    client,
)

from wattkeeper.simulator import Simulation, SimulatorError
from wattkeeper.units import Milliwatts

NOBODY = 65534


@pytest.fixture
def gpus(folder: Path) -> Iterator[Simulation]:
    with Simulation.create(folder, model="H100", gpus=4, sensors="ideal", clock="manual") as simulation:
        yield simulation


def test_a_client_finds_the_gpus_by_index_uuid_and_bus_id(folder: Path) -> None:
    with Simulation.create(folder, model="V100", gpus=4, order=[3, 1, 0, 2]) as simulation:
        truth = simulation.show().gpus
        seen = client(
            simulation,
            """
answer([[n.nvmlDeviceGetIndex(h), n.nvmlDeviceGetMinorNumber(h), n.nvmlDeviceGetUUID(h), n.nvmlDeviceGetName(h),
         n.nvmlDeviceGetPciInfo(h).busId,
         n.nvmlDeviceGetMinorNumber(n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(h))),
         n.nvmlDeviceGetMinorNumber(n.nvmlDeviceGetHandleByPciBusId(n.nvmlDeviceGetPciInfo(h).busId))]
        for h in map(gpu, range(n.nvmlDeviceGetCount()))])
""",
        )
    by_minor = {gpu.minor: gpu for gpu in truth}
    assert [row[0] for row in seen] == [0, 1, 2, 3]
    assert [row[1] for row in seen] == [3, 1, 0, 2] == [row[5] for row in seen] == [row[6] for row in seen]
    for _, minor, uuid, name, bus_id, _, _ in seen:
        gpu = by_minor[minor]
        assert (uuid, name, bus_id) == (gpu.uuid, gpu.name, gpu.pci_bus_id)


def test_nodes_have_different_uuids_and_keep_theirs(tmp_path: Path) -> None:
    def uuids(name: str, *, replace: bool = False) -> list[str]:
        with Simulation.create(tmp_path / name, replace=replace) as simulation:
            return [gpu.uuid for gpu in simulation.show().gpus]

    first = uuids("node1")
    assert len({*first, *uuids("node2")}) == 8
    assert uuids("node1", replace=True) == first


def test_the_range_is_the_devices_own_and_kept(gpus: Simulation) -> None:
    seen = client(
        gpus,
        """
h = gpu(0)
answer([n.nvmlDeviceGetPowerManagementLimitConstraints(h), n.nvmlDeviceGetPowerManagementDefaultLimit(h),
        tried(n.nvmlDeviceSetPowerManagementLimit, h, 199_999),
        tried(n.nvmlDeviceSetPowerManagementLimit, h, 700_001),
        tried(n.nvmlDeviceSetPowerManagementLimit, h, 200_000), n.nvmlDeviceGetPowerManagementLimit(h)])
""",
    )
    assert seen == [[200_000, 700_000], 700_000, INVALID_ARGUMENT, INVALID_ARGUMENT, None, 200_000]


def test_both_setters_set_one_gpu(gpus: Simulation) -> None:
    seen = client(
        gpus,
        """
value = n.c_nvmlPowerValue_v2_t(version=n.nvmlPowerValue_v2, powerScope=0, powerValueMw=300_000)
wrong = n.c_nvmlPowerValue_v2_t(version=7, powerScope=0, powerValueMw=400_000)
module = n.c_nvmlPowerValue_v2_t(version=n.nvmlPowerValue_v2, powerScope=1, powerValueMw=400_000)
import ctypes
setter = n._nvmlGetFunctionPointer("nvmlDeviceSetPowerManagementLimit_v2")
n.nvmlDeviceSetPowerManagementLimit(gpu(2), 250_000)
answer([setter(gpu(1), ctypes.byref(v)) for v in (value, wrong, module)])
""",
    )
    assert seen == [0, VERSION_MISMATCH, NOT_SUPPORTED]
    assert [gpu.requested_mw for gpu in gpus.show().gpus] == [700_000, 300_000, 250_000, 700_000]


def test_an_out_of_band_limit_is_enforced_below_the_requested_one(gpus: Simulation) -> None:
    gpus.load(0, 1.0)
    gpus.fault(0, "oob", 400_000)
    gpus.advance(1)
    seen = client(
        gpus,
        """
h = gpu(0)
def limits():
    return [field(h, 192), field(h, 190), n.nvmlDeviceGetPowerManagementLimit(h),
            n.nvmlDeviceGetEnforcedPowerLimit(h)]
before = [*limits(), n.nvmlDeviceGetPowerUsage(h)]
n.nvmlDeviceSetPowerManagementLimit(h, 300_000)
answer([before, limits()])
""",
    )
    assert seen == [[700_000, 400_000, 700_000, 400_000, 400_000], [300_000] * 4]


def test_who_may_not_write_the_state_may_read_but_not_set(folder: Path) -> None:
    root = os.geteuid() == 0
    with Simulation.create(folder) as simulation:
        if not root:
            (folder / "state").chmod(0o444)
        seen = client(
            simulation,
            """
answer([n.nvmlDeviceGetPowerManagementLimit(gpu(0)),
        tried(n.nvmlDeviceSetPowerManagementLimit, gpu(0), 300_000)])
""",
            user=NOBODY if root else None,
        )
        assert seen == [700_000, NO_PERMISSION]
        assert simulation.gpu(0).requested_mw == 700_000


def test_its_owner_may_set_without_being_root(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become someone else")
    os.chown(folder, NOBODY, NOBODY)
    with Simulation.create(folder) as simulation:
        os.chown(folder / "state", NOBODY, NOBODY)
        assert client(simulation, "answer(n.nvmlDeviceSetPowerManagementLimit(gpu(0), 300_000))", user=NOBODY) is None
        assert simulation.gpu(0).requested_mw == 300_000


def test_energy_is_power_times_time_and_runs_on_over_a_change(gpus: Simulation) -> None:
    start = gpus.gpu(0).energy_mj
    gpus.load(0, 1.0)
    gpus.advance(10)
    assert gpus.gpu(0).energy_mj - start == 7_000_000
    gpus.set_limit(0, Milliwatts(250_000))
    assert gpus.gpu(0).energy_mj - start == 7_000_000
    gpus.advance(4)
    gpu = gpus.gpu(0)
    assert gpu.energy_mj - start == 7_000_000 + 6_100 + 5_200 + 4_300 + 3_400 + 250 * 3_960  # in five steps of 10 ms
    assert (gpu.power_mw, gpu.capped_ns) == (250_000, 4_000_000_000)
    seen = client(
        gpus,
        """
h = gpu(0)
f = n.nvmlDeviceGetFieldValues(h, [191, 83])
answer([n.nvmlDeviceGetTotalEnergyConsumption(h), f[0].value.ullVal, f[1].value.ullVal,
        n.nvmlDeviceGetViolationStatus(h, 0).violationTime, n.nvmlDeviceGetCurrentClocksEventReasons(h),
        n.nvmlDeviceGetUtilizationRates(h).gpu])
""",
    )
    assert seen == [gpu.energy_mj, gpu.energy_mj, gpu.energy_mj, 4_000_000_000, 4, 100]


def test_a_limit_above_the_natural_power_changes_nothing(gpus: Simulation) -> None:
    gpus.load(0, 0.5)
    natural = gpus.gpu(0).power_mw
    gpus.set_limit(0, Milliwatts(natural + 1_000))
    gpu = gpus.gpu(0)
    assert (gpu.power_mw, gpu.natural_mw, gpu.capped_ns) == (natural, natural, 0)


def test_real_time_runs_by_itself(folder: Path) -> None:
    with Simulation.create(folder, gpus=1) as simulation:
        before = simulation.show()
        while (after := simulation.show()).now_ns < before.now_ns + 50_000_000:
            threading.Event().wait(0.01)
    spent = after.gpus[0].energy_mj - before.gpus[0].energy_mj
    assert abs(spent - 70_000 * (after.now_ns - before.now_ns) / 1e9) <= 1


def test_a_driver_reload_puts_limits_and_counters_back(gpus: Simulation) -> None:
    gpus.load(0, 1.0)
    gpus.set_limit(0, Milliwatts(300_000))
    gpus.advance(5)
    generation = gpus.show().driver_generation
    gpus.driver_reload()
    assert client(
        gpus,
        "answer([n.nvmlDeviceGetPowerManagementLimit(gpu(0)), n.nvmlDeviceGetTotalEnergyConsumption(gpu(0))])",
    ) == [700_000, 0]
    node = gpus.show()
    assert (node.driver_generation, node.driver_loaded_ns) == (generation + 1, node.now_ns)
    assert (node.gpus[0].capped_ns, node.gpus[0].load) == (0, 1.0)


def test_a_reboot_clears_all_but_the_out_of_band_limit(gpus: Simulation) -> None:
    gpus.load(0, 1.0)
    gpus.set_limit(0, Milliwatts(300_000))
    gpus.fault(0, "lost")
    gpus.fault(0, "oob", 450_000)
    gpus.advance(5)
    gpus.reboot()
    gpu = gpus.gpu(0)
    assert (gpu.requested_mw, gpu.enforced_mw, gpu.energy_mj, gpu.load) == (700_000, 450_000, 0, 0.0)
    assert gpu.faults == ("oob",)


def test_a_state_of_another_boot_is_a_freshly_booted_node(gpus: Simulation) -> None:
    gpus.load(0, 1.0)
    gpus.set_limit(0, Milliwatts(300_000))
    this_boot = gpus.show().boot_id
    gpus.forge_boot_id("00000000-0000-0000-0000-000000000000")
    for _ in range(2):  # as a reader sees it, and after a writer has made it so
        node = gpus.show()
        gpu = node.gpus[0]
        assert (node.boot_id, node.clock) == (this_boot, "real")
        assert (gpu.requested_mw, gpu.load, gpu.capped_ns) == (700_000, 0.0, 0)
        assert gpu.energy_mj == gpu.power_mw * node.now_ns // 1_000_000_000  # idle since the machine started
        gpus.set_profile("none")


def test_reading_answers_what_old_and_new_clients_look_up(gpus: Simulation) -> None:
    seen = client(
        gpus,
        """
h = gpu(0)
answer([n.nvmlSystemGetDriverVersion(), n.nvmlSystemGetNVMLVersion(), n.nvmlSystemGetCudaDriverVersion(),
        n.nvmlDeviceGetPersistenceMode(h), n.nvmlDeviceGetPowerManagementMode(h), n.nvmlDeviceGetMigMode(h),
        n.nvmlDeviceGetArchitecture(h), n.nvmlDeviceGetCudaComputeCapability(h), n.nvmlDeviceGetTemperature(h, 0),
        n.nvmlDeviceGetTemperatureV(h, 0), n.nvmlDeviceGetMemoryInfo(h).total,
        n.nvmlDeviceGetMemoryInfo(h, n.nvmlMemory_v2).total, n.nvmlDeviceGetComputeRunningProcesses(h),
        n.nvmlDeviceGetGraphicsRunningProcesses(h), n.nvmlDeviceGetMaxClockInfo(h, 1),
        n.nvmlDeviceGetPerformanceState(h), n.nvmlDeviceGetEccMode(h), n.nvmlDeviceGetClockInfo(h, 0) > 0,
        len(n.nvmlDeviceGetSerial(h)), n.nvmlDeviceGetBoardId(h) > 0, n.nvmlDeviceGetBrand(h),
        n.nvmlDeviceGetCurrentClocksThrottleReasons(h), field(h, 185), field(h, 186),
        [n._nvmlGetFunctionPointer(name)(None) for name in ("nvmlInit", "nvmlDeviceGetCount")]])
""",
    )
    memory = 81_559 * 2**20
    assert seen == [
        *("580.65.06", "13.580.65.06", 13_000, 1, 1, [0, 0], 9, [9, 0], 29, 29, memory, memory, [], [], 1980, 0),
        *([1, 1], True, 13, True, 14, 1, 70_000, 70_000, [0, INVALID_ARGUMENT]),
    ]


def test_older_models_lack_what_they_lack(folder: Path) -> None:
    with Simulation.create(folder, model="v100", gpus=1) as simulation:
        assert client(simulation, "answer([tried(n.nvmlDeviceGetMigMode, gpu(0)), field(gpu(0), 185)])") == [
            NOT_SUPPORTED,
            NOT_SUPPORTED,
        ]


def test_other_names_answer_not_supported(gpus: Simulation) -> None:
    assert (
        client(
            gpus,
            """
h = gpu(0)
answer([tried(n.nvmlDeviceGetFanSpeed, h), tried(n.nvmlDeviceGetGpuOperationMode, h),
        tried(n.nvmlDeviceGetBridgeChipInfo, h), tried(n.nvmlUnitGetCount), tried(field, h, 1)])
""",
        )
        == [NOT_SUPPORTED] * 5
    )


def test_nothing_answers_before_init_and_no_garbage_is_a_device(gpus: Simulation) -> None:
    seen = client(
        gpus,
        """
import ctypes
before = [tried(n.nvmlDeviceGetCount)]
n.nvmlInit()
handle = gpu(0)
bad = [tried(n.nvmlDeviceGetPowerUsage, ctypes.cast(ctypes.c_void_p(p), n.c_nvmlDevice_t)) for p in (0, 1, 2**47)]
bad += [tried(n.nvmlDeviceGetHandleByIndex, 4), tried(n.nvmlDeviceGetHandleByUUID, "GPU-0")]
n.nvmlInit()
n.nvmlShutdown()
still = n.nvmlDeviceGetPowerUsage(handle)
n.nvmlShutdown()
answer([before, bad, still, tried(n.nvmlDeviceGetPowerUsage, handle), tried(n.nvmlDeviceGetFanSpeed, handle),
        tried(n.nvmlShutdown)])
""",
        init=False,
    )
    assert seen == [
        [UNINITIALIZED],
        [INVALID_ARGUMENT] * 4 + [NOT_FOUND],
        70_000,
        UNINITIALIZED,
        UNINITIALIZED,
        UNINITIALIZED,
    ]


def test_without_a_state_there_is_no_driver(gpus: Simulation, tmp_path: Path) -> None:
    code = """
os.unsetenv("WATTKEEPER_SIM_STATE")
answer(tried(n.nvmlInit))
"""
    assert client(gpus, code, init=False) == DRIVER_NOT_LOADED
    with pytest.raises(SimulatorError, match="wattkeeper sim env"):
        Simulation.open(tmp_path)


def test_faults_of_the_setter(gpus: Simulation) -> None:
    gpus.fault(0, "ignored")
    gpus.fault(1, "no-permission")
    assert client(gpus, "answer([tried(n.nvmlDeviceSetPowerManagementLimit, gpu(i), 300_000) for i in range(3)])") == [
        None,
        NO_PERMISSION,
        None,
    ]
    assert [gpu.requested_mw for gpu in gpus.show().gpus] == [700_000, 700_000, 300_000, 700_000]


def test_a_lost_gpu_says_so_and_the_others_work(gpus: Simulation) -> None:
    gpus.fault(1, "lost")
    assert client(gpus, "answer([tried(lambda: n.nvmlDeviceGetPowerUsage(gpu(i))) for i in range(4)])") == [
        70_000,
        GPU_IS_LOST,
        70_000,
        70_000,
    ]
    gpus.clear_fault(1)
    assert client(gpus, "answer(n.nvmlDeviceGetPowerUsage(gpu(1)))") == 70_000


def test_a_hang_blocks_one_gpu_until_it_is_cleared(gpus: Simulation) -> None:
    gpus.fault(0, "hang")
    program = """
n.nvmlInit()
handle = gpu(0)
thread = threading.Thread(target=n.nvmlDeviceSetPowerManagementLimit, args=(handle, 300_000))
thread.start()
answer([n.nvmlDeviceGetPowerUsage(gpu(1)), thread.is_alive()])
thread.join()
answer("back")
"""
    command = [sys.executable, "-c", PRELUDE + program]
    with subprocess.Popen(command, env={**os.environ, **gpus.env()}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline()) == [70_000, True]
        assert gpus.gpu(0).requested_mw == 700_000
        gpus.clear_fault(0, "hang")
        assert json.loads(process.stdout.readline()) == "back"
    assert gpus.gpu(0).requested_mw == 300_000  # late, but done


def test_a_timed_hang_delays_each_call(gpus: Simulation) -> None:
    gpus.fault(0, "hang", 0.2)
    code = "h = gpu(0); start = time.monotonic(); n.nvmlDeviceGetPowerUsage(h); answer(time.monotonic() - start)"
    assert client(gpus, code) >= 0.2


def test_the_driver_profile_takes_a_drivers_time_under_one_lock(gpus: Simulation) -> None:
    gpus.set_profile("driver")
    reads, sets = client(
        gpus,
        """
handles = [gpu(i) for i in range(4)]
start = time.monotonic()
for h in handles:
    for _ in range(5):
        n.nvmlDeviceGetPowerUsage(h)
reads = time.monotonic() - start
start = time.monotonic()
threads = [threading.Thread(target=n.nvmlDeviceSetPowerManagementLimit, args=(h, 300_000)) for h in handles]
for t in threads: t.start()
for t in threads: t.join()
answer([reads, time.monotonic() - start])
""",
    )
    assert reads >= 20 * 100e-6
    assert sets >= 4 * 10e-3  # one after another: the driver has one lock


def test_many_threads_may_call_at_once(gpus: Simulation) -> None:
    assert (
        client(
            gpus,
            """
wrong = []
def work(h, limit):
    for _ in range(200):
        n.nvmlDeviceSetPowerManagementLimit(h, limit)
        if n.nvmlDeviceGetPowerManagementLimit(h) != limit:
            wrong.append(limit)
        n.nvmlInit(); n.nvmlShutdown()
threads = [threading.Thread(target=work, args=(gpu(i), 300_000 + i)) for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
answer(len(wrong))
""",
        )
        == 0
    )


def test_writers_killed_at_any_time_leave_a_working_state(folder: Path) -> None:
    hammer = """
import ctypes, itertools, os, sys
from wattkeeper.simulator import Simulation
s = Simulation.open(sys.argv[1])
print("up", flush=True)
for i in itertools.count():
    s.set_limit(i % 2, 200_000 + i % 500_000)
    s.load(i % 2, i % 100 / 100)
"""
    choose = random.Random(7)  # noqa: S311  a repeatable order, not a secret
    with Simulation.create(folder, gpus=2, profile="none") as simulation:
        last = [0, 0]
        for _ in range(4):
            command = [sys.executable, "-c", hammer, str(folder)]
            hammers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
            for process in hammers:
                assert process.stdout
                assert process.stdout.readline() == "up\n"
            for process in choose.sample(hammers, 4):
                for _ in range(choose.randrange(1_000)):
                    energy = [int(gpu.energy_mj) for gpu in simulation.show().gpus]
                    assert all(now >= before for now, before in zip(energy, last, strict=True))
                    last = energy
                process.send_signal(signal.SIGKILL)
            for process in hammers:
                process.communicate()
        simulation.set_limit(0, Milliwatts(333_000))
        assert simulation.gpu(0).requested_mw == 333_000


def test_a_write_torn_by_its_writers_death_does_not_count(gpus: Simulation) -> None:
    gpus.set_limit(0, Milliwatts(300_000))
    file = gpus.state / "state"
    data = bytearray(file.read_bytes())
    slot = (len(data) - 24) // 2
    sequence = int.from_bytes(data[16:24], "little")
    unread = 24 + (sequence // 2 + 1) % 2 * slot
    with file.open("r+b") as opened:  # in place, as a writer does
        opened.seek(unread)
        opened.write(os.urandom(slot))
        opened.seek(16)
        opened.write((sequence | 1).to_bytes(8, "little"))
    code = "answer(n.nvmlDeviceGetPowerManagementLimit(gpu(0)))"
    assert client(gpus, code) == 300_000
    gpus.set_limit(1, Milliwatts(400_000))
    assert [gpu.requested_mw for gpu in gpus.show().gpus[:2]] == [300_000, 400_000]
    assert client(gpus, code) == 300_000


def test_damaged_states_crash_nobody(gpus: Simulation) -> None:
    code = """
import random
path = os.environ["WATTKEEPER_SIM_STATE"] + "/state"
good = open(path, "rb").read()
choose = random.Random(1)
outcomes = set()
for round in range(400):
    bad = bytearray(good)
    if round % 8 == 0:
        bad = bad[:choose.randrange(len(bad))]
    else:
        start = choose.randrange(len(bad)) if round % 2 else choose.randrange(200)
        for at in range(start, min(len(bad), start + choose.randrange(1, 400))):
            bad[at] = choose.randrange(256)
    with open(path, "r+b") as file:
        file.write(bad)
        file.truncate(len(bad))
    outcomes.add(tried(n.nvmlInit))
    for i in range(4):
        h = tried(gpu, i)
        if not isinstance(h, int):
            for call in (n.nvmlDeviceGetUUID, n.nvmlDeviceGetName, n.nvmlDeviceGetTotalEnergyConsumption,
                         n.nvmlDeviceGetPciInfo, n.nvmlDeviceGetTemperature):
                tried(call, h, *([0] if call is n.nvmlDeviceGetTemperature else []))
            if round % 16 == 1:
                open(path, "r+b").truncate(100)
                outcomes.add(tried(n.nvmlDeviceGetPowerUsage, h))
                tried(n.nvmlDeviceSetPowerManagementLimit, h, 300_000)
            else:
                tried(n.nvmlDeviceSetPowerManagementLimit, h, 300_000)
    tried(n.nvmlShutdown)
answer(sorted(outcomes, key=str))
"""
    assert client(gpus, code, init=False) == [UNKNOWN, None]
    with pytest.raises(SimulatorError, match="--replace"):
        (gpus.state / "state").write_bytes(b"nonsense")
        Simulation.open(gpus.state)


def test_who_holds_a_replaced_state_is_told(gpus: Simulation) -> None:
    Simulation.create(gpus.state, gpus=2, replace=True).close()
    with pytest.raises(SimulatorError, match="replaced"):
        gpus.show()
    with pytest.raises(SimulatorError, match="replaced"):
        gpus.load(0, 1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "H9000"}, "H100-PCIe"),
        ({"order": [0, 0, 1, 2]}, "order"),
        ({"gpus": 17}, "0 to 16"),
        ({"limit_mw": 100_000}, "no limit of 100 W"),
    ],
)
def test_what_cannot_be_created_is_refused_with_a_reason(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SimulatorError, match=message):
        Simulation.create(tmp_path, **wrong)
    assert not (tmp_path / "state").exists()


def test_controls_refuse_what_makes_no_sense(gpus: Simulation) -> None:
    with pytest.raises(SimulatorError, match="200 W to 700 W"):
        gpus.set_limit(0, Milliwatts(100_000))
    with pytest.raises(SimulatorError, match="no GPU 4"):
        gpus.load(4, 0.5)
    with pytest.raises(SimulatorError, match="between 0 and 1"):
        gpus.load(0, 1.5)
    with pytest.raises(SimulatorError, match="oob"):
        gpus.fault(0, "oob")
    with pytest.raises(SimulatorError, match="already"):
        Simulation.create(gpus.state)
    with pytest.raises(SimulatorError, match="moved by"):
        gpus.advance(-1)
