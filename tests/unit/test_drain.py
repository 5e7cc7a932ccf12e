"""Events that waited in the spool: one after the other, and none because of another's GPU."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes import FakeGpus
from tests.one_node import AS_ASKED, HandClock, OneNode, gpu

from wattkeeper.agent.spool import Spool
from wattkeeper.model import GpuInfo

LONG_S = 20.0
LIMITS_MW = {"GPU-0": 300_000, "GPU-1": 310_000, "GPU-2": 320_000}


class Slow(FakeGpus):
    """GPUs whose limits take until ``let`` to be set. One that is broken trips whoever saves its baseline."""

    broken = "none"

    def __init__(self, *infos: GpuInfo) -> None:
        super().__init__(*infos)
        self.let = asyncio.Event()

    async def set_limit(self, uuid: str, limit_mw: int, deadline_s: float) -> int:
        await self.let.wait()
        return await super().set_limit(uuid, limit_mw, deadline_s)

    async def save_baseline(self, uuid: str, deadline_s: float) -> int:
        if uuid == self.broken:
            raise ZeroDivisionError
        return await super().save_baseline(uuid, deadline_s)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wk-spool-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def gpus() -> Slow:
    return Slow(*map(gpu, range(3)))


def put(folder: Path, job: int, kind: str = "prolog", name: str = "") -> None:
    """An event of a job, on the GPU one below its number; later events have higher times, but for those named."""
    text = f"SLURM_JOB_ID={job}\0SLURM_JOB_UID=1000\0SLURM_CLUSTER_NAME=c\0SLURM_JOB_GPUS={job - 1}\0"
    path = folder / f"{name or f'{900 + len(list(folder.iterdir())):09}.00-{job}'}.{kind}"
    path.write_text(f"{text}SLURM_JOB_COMMENT=power={LIMITS_MW[f'GPU-{job - 1}'] // 1000}W\0")
    path.chmod(0o640)


def limits_mw(gpus: Slow) -> dict[str, int | None]:
    return {uuid: one.reading.requested_mw for uuid, one in gpus.gpus.items()}


def test_a_device_that_hangs_keeps_no_later_event_waiting(folder: Path, gpus: Slow) -> None:
    node = OneNode(*map(gpu, range(3)), gpus=gpus, policy=AS_ASKED)
    for job in (1, 2, 3):
        put(folder, job)

    async def meanwhile() -> None:
        until = time.monotonic() + LONG_S
        while len(node.state.holdings) < 3:
            assert time.monotonic() < until, f"only {node.state.holdings} while a limit is being set"
            await asyncio.sleep(0)
        assert set(limits_mw(gpus).values()) == {700_000}
        gpus.let.set()

    node.drain(Spool(folder, HandClock()), meanwhile)
    assert limits_mw(gpus) == LIMITS_MW
    assert not list(folder.iterdir())


def test_what_is_over_by_the_end_of_the_spool_is_never_written(folder: Path, gpus: Slow) -> None:
    node = OneNode(*map(gpu, range(3)), gpus=gpus, policy=AS_ASKED)
    put(folder, 1)
    put(folder, 2)
    put(folder, 1, "epilog")
    gpus.let.set()
    node.drain(Spool(folder, HandClock()))
    assert gpus.writes == [("GPU-1", 310_000)]
    assert node.tally.hook_events == {("prolog", "applied"): 2, ("epilog", "applied"): 1}


def test_hooks_within_a_hundredth_of_a_second_are_in_the_order_of_their_pids(folder: Path, gpus: Slow) -> None:
    """That is how finely /proc/uptime tells, and a hook that finds no agent takes a third of it."""
    node = OneNode(*map(gpu, range(3)), gpus=gpus, policy=AS_ASKED)
    put(folder, 1, name="000000900.25-998")
    put(folder, 1, "epilog", name="000000900.25-1002")
    put(folder, 2, name="000000900.25-1007")
    gpus.let.set()
    node.drain(Spool(folder, HandClock()))
    assert [holding.job.key.job_id for holding in node.state.holdings] == [2]
    assert [key.job_id for key in node.state.over] == [1]
    assert node.tally.hook_events == {("prolog", "applied"): 2, ("epilog", "applied"): 1}


def test_an_event_that_we_stumble_over_stops_neither_the_others_nor_the_next_agent(
    folder: Path, gpus: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    node = OneNode(*map(gpu, range(3)), gpus=gpus, policy=AS_ASKED)
    gpus.broken = "GPU-1"
    for job in (1, 2, 3):
        put(folder, job)
    gpus.let.set()
    node.drain(Spool(folder, HandClock()))
    assert limits_mw(gpus) == LIMITS_MW | {"GPU-1": 700_000}
    assert not list(folder.iterdir())
    (line,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert "000000901.00-2.prolog: cannot be handled, and is dropped" in line.getMessage()
    assert line.exc_info is not None
