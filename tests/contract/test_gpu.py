"""What reading and setting GPUs comes to: on the fake that other tests use, and through NVML on simulated cards."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from tests.contract.reading import check as check_reading
from tests.fakes import FakeGpus
from tests.lab.actuator import actuator_process
from tests.lab.waiting import wait_until
from tests.unit.nvml_here import lacking
from tests.unit.simulated import open_reader

from wattkeeper.core.attribute import attribute
from wattkeeper.gpus.actuator import SetsLimits, ThreadedActuator
from wattkeeper.gpus.nvml import NvmlReader
from wattkeeper.gpus.worker import DeviceThread
from wattkeeper.model import EnergySample, GpuInfo, GpuReading, GpuUuid, Watermark
from wattkeeper.privileged.baselines import Baselines
from wattkeeper.privileged.errors import DeviceError, Kind
from wattkeeper.privileged.limits import Limits
from wattkeeper.privileged.nvml import Nvml
from wattkeeper.protocols import Actuator, GpuReader
from wattkeeper.simulator import Process, Simulation
from wattkeeper.simulator.library import find_library
from wattkeeper.simulator.models import Lack
from wattkeeper.system.clock import SystemClock
from wattkeeper.units import Milliwatts

Fault = Literal["refuses", "ignores", "lost", "hangs", "cannot save"]
DEADLINE_S = 10.0
SOON_S = 0.25
SAMPLE_S = 0.4
"""Longer than the driver takes for a new sample of use."""


@dataclass
class Bench:
    """Two H100s, their reader and actuator, and the hand that breaks GPU 0 (None: mends it)."""

    reader: GpuReader
    actuator: Actuator
    uuid: GpuUuid
    limit_mw: Callable[[], int | None]
    set_fault: Callable[[Fault | None], None]
    set_use: Callable[[dict[int, float]], None]


def fake() -> Bench:
    low, high = Milliwatts(200_000), Milliwatts(700_000)
    infos = [GpuInfo(GpuUuid(f"GPU-{minor}"), minor, minor, "H100", high, low, high) for minor in (1, 0)]
    gpus = FakeGpus(*infos)
    gpu = gpus.gpus[GpuUuid("GPU-0")]

    def set_fault(fault: Fault | None) -> None:
        if fault is None:
            gpu.mend()
        elif fault == "hangs":
            gpu.hang()
        else:
            setattr(gpu, fault.replace(" ", "_"), True)

    def set_use(shares: dict[int, float]) -> None:
        gpu.use_by_pid = {pid: round(100 * share) for pid, share in shares.items()}

    return Bench(gpus, gpus, gpu.info.uuid, lambda: gpu.reading.requested_mw, set_fault, set_use)


def simulated(baselines: Path, simulation: Simulation, nvml: Nvml, limits: SetsLimits) -> Bench:
    threads = cache(DeviceThread)
    reader = NvmlReader(nvml, SystemClock(), threads)
    actuator = ThreadedActuator(limits, threads)

    def set_fault(fault: Fault | None) -> None:
        match fault:
            case None:
                simulation.clear_fault(0)
            case "refuses":
                simulation.fault(0, "no-permission")
            case "ignores":
                simulation.fault(0, "ignored")
            case "lost":
                simulation.fault(0, "lost")
            case "hangs":
                simulation.fault(0, "hang")
            case "cannot save":
                (baselines / f"{simulation.gpu(0).uuid}.json").mkdir(parents=True)

    uuid = GpuUuid(simulation.gpu(0).uuid)

    def set_use(shares: dict[int, float]) -> None:
        simulation.load(0, 1.0)
        simulation.set_processes(0, [Process(pid=pid, use=share) for pid, share in shares.items()])

    return Bench(reader, actuator, uuid, lambda: simulation.gpu(0).requested_mw, set_fault, set_use)


@pytest.fixture(params=["fake", "simulator", "actuator"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    if request.param == "fake":
        yield fake()
        return
    with Simulation.create(tmp_path / "gpus", model="H100", gpus=2, order=[1, 0]) as simulation:
        monkeypatch.setenv("WATTKEEPER_SIM_STATE", str(simulation.state))
        nvml = Nvml(str(find_library()))
        baselines = tmp_path / "baseline"
        with ExitStack() as stack:
            limits: SetsLimits = Limits(nvml, Baselines(baselines, "boot-1"))
            if request.param == "actuator":
                limits = stack.enter_context(actuator_process(tmp_path, simulation))
            bench = simulated(baselines, simulation, nvml, limits)
            yield bench
            simulation.clear_fault(0)
            # a call that comes back after the library was closed would open it again, for all tests that follow
            wait_until(lambda: not bench.reader.stalled(bench.uuid), 5, "no call is out", note=False)
        nvml.close()


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scene)


async def refused(call: Coroutine[Any, Any, object]) -> Kind:
    with pytest.raises(DeviceError) as caught:
        await call
    return caught.value.kind


async def read(bench: Bench, uuid: GpuUuid, deadline_s: float = DEADLINE_S) -> GpuReading:
    answer = (await bench.reader.read([uuid], deadline_s))[uuid]
    if isinstance(answer, DeviceError):
        raise answer
    return answer


def test_reading_keeps_its_contract(bench: Bench) -> None:
    async def scene() -> None:
        assert [gpu.minor for gpu in await check_reading(bench.reader)] == [0, 1]

    run(scene())


def test_gpus_come_by_minor_number(bench: Bench) -> None:
    async def scene() -> None:
        first, second = await bench.reader.list_gpus(DEADLINE_S)
        assert (first.minor, second.minor, first.uuid) == (0, 1, bench.uuid)
        assert (first.min_mw, first.default_mw, first.max_mw) == (200_000, 700_000, 700_000)

    run(scene())


def test_a_limit_is_set_and_read_back(bench: Bench) -> None:
    async def scene() -> None:
        assert await bench.actuator.set_limit(bench.uuid, 300_000, DEADLINE_S) == 300_000
        assert bench.limit_mw() == 300_000
        reading = await read(bench, bench.uuid)
        assert (reading.requested_mw, reading.enforced_mw) == (300_000, 300_000)

    run(scene())


def test_the_first_write_saves_the_baseline_and_no_later_one_does(bench: Bench) -> None:
    async def scene() -> None:
        assert await bench.actuator.baseline(bench.uuid, DEADLINE_S) == (None, False)
        await bench.actuator.set_limit(bench.uuid, 300_000, DEADLINE_S)
        await bench.actuator.set_limit(bench.uuid, 250_000, DEADLINE_S)
        assert await bench.actuator.baseline(bench.uuid, DEADLINE_S) == (700_000, True)
        assert await bench.actuator.give_back(bench.uuid, 700_000, DEADLINE_S) == 700_000
        assert await bench.actuator.baseline(bench.uuid, DEADLINE_S) == (700_000, False)

    run(scene())


def test_a_claim_writes_nothing(bench: Bench) -> None:
    async def scene() -> None:
        assert await bench.actuator.save_baseline(bench.uuid, DEADLINE_S) == 700_000
        assert await bench.actuator.baseline(bench.uuid, DEADLINE_S) == (700_000, False)
        assert await bench.actuator.claim(bench.uuid, DEADLINE_S) == 700_000
        assert await bench.actuator.baseline(bench.uuid, DEADLINE_S) == (700_000, True)
        assert bench.limit_mw() == 700_000

    run(scene())


@pytest.mark.parametrize("limit_mw", [199_999, 700_001, 0])
def test_what_is_out_of_range_is_refused_before_anything_is_done(bench: Bench, limit_mw: int) -> None:
    async def scene() -> None:
        assert await refused(bench.actuator.set_limit(bench.uuid, limit_mw, DEADLINE_S)) is Kind.INVALID
        assert await bench.actuator.baseline(bench.uuid, DEADLINE_S) == (None, False)
        assert bench.limit_mw() == 700_000

    run(scene())


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("refuses", Kind.PERMISSION), ("ignores", Kind.NOT_TAKEN), ("lost", Kind.LOST), ("cannot save", Kind.STATE)],
)
def test_a_write_that_fails_says_why_and_changes_nothing(bench: Bench, fault: Fault, kind: Kind) -> None:
    async def scene() -> None:
        bench.set_fault(fault)
        assert await refused(bench.actuator.set_limit(bench.uuid, 300_000, DEADLINE_S)) is kind
        assert bench.limit_mw() == 700_000

    run(scene())


def test_a_lost_gpu_cannot_be_read_and_can_again_when_it_is_back(bench: Bench) -> None:
    async def scene() -> None:
        bench.set_fault("lost")
        assert await refused(read(bench, bench.uuid)) is Kind.LOST
        bench.set_fault(None)
        assert (await read(bench, bench.uuid)).requested_mw == 700_000

    run(scene())


def test_a_hung_gpu_costs_its_caller_the_deadline_and_no_other_gpu_anything(bench: Bench) -> None:
    async def scene() -> None:
        _, other = await bench.reader.list_gpus(DEADLINE_S)
        bench.set_fault("hangs")
        assert await refused(read(bench, bench.uuid, SOON_S)) is Kind.TIMEOUT
        assert await refused(bench.actuator.set_limit(bench.uuid, 300_000, SOON_S)) is Kind.TIMEOUT
        assert bench.reader.stalled(bench.uuid)
        assert (await read(bench, other.uuid)).requested_mw == 700_000
        assert not bench.reader.stalled(other.uuid)
        bench.set_fault(None)
        assert (await read(bench, bench.uuid)).requested_mw == 700_000
        assert not bench.reader.stalled(bench.uuid)

    run(scene())


def test_gpus_read_together_answer_each_for_itself(bench: Bench) -> None:
    async def scene() -> None:
        uuids = [info.uuid for info in await bench.reader.list_gpus(DEADLINE_S)]
        assert await bench.reader.read([], DEADLINE_S) == {}
        answers = await bench.reader.read(uuids, DEADLINE_S)
        assert [uuid for uuid, answer in answers.items() if isinstance(answer, GpuReading)] == uuids
        bench.set_fault("lost")
        lost, well = (await bench.reader.read(uuids, DEADLINE_S)).values()
        assert isinstance(lost, DeviceError)
        assert lost.kind is Kind.LOST
        assert isinstance(well, GpuReading)

    run(scene())


@pytest.mark.parametrize("hung_first", [True, False])
def test_a_gpu_that_hangs_among_those_read_is_late_alone(bench: Bench, hung_first: bool) -> None:
    async def scene() -> None:
        hung, other = (info.uuid for info in await bench.reader.list_gpus(DEADLINE_S))
        bench.set_fault("hangs")
        begun = time.monotonic()
        answers = await bench.reader.read([hung, other] if hung_first else [other, hung], 4 * SOON_S)
        took_s = time.monotonic() - begun
        late = answers[hung]
        assert isinstance(late, DeviceError)
        assert late.kind is Kind.TIMEOUT
        assert isinstance(answers[other], GpuReading)
        assert took_s < 3 * 2 * 4 * SOON_S
        assert bench.reader.stalled(hung)
        assert not bench.reader.stalled(other)

    run(scene())


def test_how_much_processes_use_a_gpu_is_told_of_shared_ones_alone(bench: Bench) -> None:
    async def scene() -> None:
        bench.set_use({os.getpid(): 0.75, 1: 0.25})
        _, other = (info.uuid for info in await bench.reader.list_gpus(DEADLINE_S))
        assert (await read(bench, bench.uuid)).use_by_pid is None
        await asyncio.sleep(SAMPLE_S)
        answers = await bench.reader.read([bench.uuid, other], DEADLINE_S, [bench.uuid])
        first, second = answers[bench.uuid], answers[other]
        assert isinstance(first, GpuReading)
        assert isinstance(second, GpuReading)
        assert first.use_by_pid is not None
        assert first.use_by_pid[os.getpid()] == 3 * first.use_by_pid[1] > 0
        assert second.use_by_pid is None

    run(scene())


@pytest.fixture
def simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    with Simulation.create(tmp_path / "gpus", model="H100,GH200", gpus=2) as made:
        monkeypatch.setenv("WATTKEEPER_SIM_STATE", str(made.state))
        yield made


@pytest.fixture
def reader(simulation: Simulation) -> Iterator[NvmlReader]:
    with open_reader() as made:
        yield made


def test_use_is_that_since_the_last_reading(simulation: Simulation, reader: NvmlReader) -> None:
    async def used() -> Mapping[int, int] | None:
        uuid = GpuUuid(simulation.gpu(0).uuid)
        answer = (await reader.read([uuid], DEADLINE_S, [uuid]))[uuid]
        assert isinstance(answer, GpuReading)
        return answer.use_by_pid

    async def scene() -> None:
        simulation.load(0, 1.0)
        simulation.set_processes(0, [Process(pid=os.getpid(), use=1.0)])
        assert await used()
        simulation.load(0, 0.0)
        await asyncio.sleep(SAMPLE_S)
        assert await used() is None  # the same samples are not given again

    run(scene())


def test_the_instances_of_a_gpu_in_mig_mode(simulation: Simulation, reader: NvmlReader) -> None:
    async def scene() -> None:
        simulation.set_mig(0, ["3g.40gb", "1g.10gb"])
        first, second = await reader.list_gpus(DEADLINE_S)
        truth = simulation.gpu(0).mig
        assert first.instances == tuple((instance.uuid, instance.slices) for instance in truth)
        assert second.instances == ()
        simulation.load(0, 1.0)
        simulation.set_processes(0, [Process(pid=os.getpid(), use=1.0, instance=0)])
        answer = (await reader.read([first.uuid], DEADLINE_S, [first.uuid]))[first.uuid]
        assert isinstance(answer, GpuReading)
        assert answer.use_by_pid is None

    run(scene())


def test_a_module_at_its_peak_gains_no_more_than_a_gpu_of_its_limit_could(
    simulation: Simulation, reader: NvmlReader
) -> None:
    """The counter of a GH200 covers its CPU too, which the GPU's highest limit does not."""

    async def scene() -> None:
        simulation.set_clock("manual")
        _, info = await reader.list_gpus(DEADLINE_S)
        assert simulation.gpu(1).uuid == info.uuid
        samples: list[EnergySample] = []
        simulation.load(1, 1.0)
        for seconds in (0.0, 0.05, 0.5, 10.0, 60.0):
            simulation.advance(seconds)
            answer = (await reader.read([info.uuid], DEADLINE_S))[info.uuid]
            assert isinstance(answer, GpuReading)
            assert answer.energy_mj is not None
            before = samples[-1].at_mono if samples else 0.0
            samples.append(EnergySample(info.uuid, answer.energy_mj, 0.0, before + seconds, "boot"))
        for earlier, later in pairwise(samples):
            charges = attribute(Watermark(earlier, ()), later, (), most_mw=info.max_mw)
            assert charges.gap is None

    run(scene())


def test_a_card_without_a_counter_tells_its_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(reader: NvmlReader) -> None:
        (info,) = await reader.list_gpus(DEADLINE_S)
        answer = (await reader.read([info.uuid], DEADLINE_S))[info.uuid]
        assert isinstance(answer, GpuReading)
        assert answer.energy_mj is None
        assert answer.power_mw is not None

    with Simulation.create(tmp_path / "gpus", model=lacking(Lack.ENERGY), gpus=1) as simulation:
        monkeypatch.setenv("WATTKEEPER_SIM_STATE", str(simulation.state))
        nvml = Nvml(str(find_library()))
        run(scene(NvmlReader(nvml, SystemClock(), cache(DeviceThread))))
        nvml.close()
