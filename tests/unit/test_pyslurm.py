"""pyslurm's process, with stand-ins for pyslurm; the real one is in tests/contract/test_lookup.py."""

import asyncio
import sys
from pathlib import Path
from typing import Literal

import pytest

from wattkeeper.protocols import LookupFailedError, LookupProblem
from wattkeeper.slurm.lookups import open_lookups
from wattkeeper.slurm.programs import Programs
from wattkeeper.slurm.pyslurm import Pyslurm, parse_answer

JOB = "{'job_id': int(job_id), 'user_id': 5, 'qos': 'high', 'name': 'x', 'account': None}"
OLD = f"""
class job:
    def find_id(self, job_id):
        print("noise that libslurm makes")
        if job_id == "9":
            raise ValueError("Invalid job id specified", 2017)
        if job_id == "8":
            import os; os._exit(1)
        if job_id == "7":
            import time; time.sleep(60)
        return [{{**{JOB}, 'job_id': 1}}, {JOB}]
"""
NEW = """
class Job:
    id, user_id, qos, name, account = 0, 5, "high", "x", None
    @classmethod
    def load(cls, job_id):
        if job_id > 6:
            raise RuntimeError("Invalid job id specified")
        job = cls(); job.id = job_id
        return job
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with Slurm 22.05's scontrol and a Python whose pyslurm is what ``pyslurm.py`` beside it says."""
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho slurm-wlm 22.05.8\n")
    (tmp_path / "python").write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/lib exec {sys.executable} "$@"\n')
    for program in ("scontrol", "python"):
        (tmp_path / program).chmod(0o755)
    (tmp_path / "lib").mkdir()
    return tmp_path


def build(site: Path, source: str, version: str = "22.5.3") -> None:
    (site / "lib" / "pyslurm.py").write_text(f"__version__ = {version!r}\n{source}")


async def opened(site: Path) -> Pyslurm | None:
    return await Pyslurm.open(Programs(None, site), str(site / "python"))


async def problem(lookup: Pyslurm, job_id: int, deadline_s: float = 5) -> LookupProblem:
    with pytest.raises(LookupFailedError) as failed:
        await lookup.look_up(job_id, deadline_s)
    return failed.value.kind


@pytest.mark.parametrize("source", [OLD, NEW], ids=["job().find_id", "Job.load"])
def test_either_generation_tells_of_a_job(site: Path, source: str) -> None:
    async def scene() -> None:
        build(site, source)
        lookup = await opened(site)
        assert lookup is not None
        looked = await lookup.look_up(5, 5)
        assert (looked.job_id, looked.uid, looked.qos, looked.job_name, looked.account) == (5, 5, "high", "x", None)
        assert await problem(lookup, 9) is LookupProblem.NOT_FOUND
        await lookup.close()

    asyncio.run(scene())


@pytest.mark.parametrize("version", ["25.11.2", "22.50.1", "22", ""])
def test_one_for_another_release_is_not_used(site: Path, version: str) -> None:
    build(site, OLD, version)
    assert asyncio.run(opened(site)) is None


@pytest.mark.parametrize("source", ["raise RuntimeError('Slurm version mismatch')", "import os; os._exit(1)", "1/0"])
def test_one_that_cannot_be_imported_or_ends_its_process_is_not_used(site: Path, source: str) -> None:
    build(site, source)
    assert asyncio.run(opened(site)) is None


def test_where_there_is_none_none_is_used(site: Path) -> None:
    assert asyncio.run(opened(site)) is None


def test_a_process_that_ends_or_hangs_is_started_again(site: Path) -> None:
    async def scene() -> None:
        build(site, OLD)
        lookup = await opened(site)
        assert lookup is not None
        assert await problem(lookup, 8) is LookupProblem.REFUSED
        assert (await lookup.look_up(5, 5)).qos == "high"
        assert await problem(lookup, 7, 0.2) is LookupProblem.TIMEOUT
        assert (await lookup.look_up(5, 5)).qos == "high"
        await lookup.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    "answer",
    ["[]", "{}", "nonsense", '{"jobs": 3}', '{"jobs": [1]}', '{"jobs": [{"job_id": 6, "user_id": 1}]}',
     '{"jobs": [{"job_id": 5}]}', '{"jobs": [{"job_id": 5, "user_id": 1}, {"job_id": 5, "user_id": 1}]}'],
)  # fmt: skip
def test_an_answer_of_another_job_or_garbage_is_wrong(answer: str) -> None:
    with pytest.raises(LookupFailedError) as failed:
        parse_answer(5, answer)
    assert failed.value.kind is LookupProblem.WRONG


def test_a_field_that_is_no_text_is_absent() -> None:
    looked = parse_answer(5, '{"jobs": [{"job_id": 5, "user_id": 1, "qos": null, "name": 3}]}')
    assert (looked.qos, looked.job_name) == (None, None)


@pytest.mark.parametrize(
    ("which", "there", "names"),
    [
        ("auto", True, ["pyslurm", "scontrol"]),
        ("auto", False, ["scontrol"]),
        ("pyslurm", True, ["pyslurm"]),
        ("pyslurm", False, []),
        ("scontrol", True, ["scontrol"]),
        ("off", True, []),
    ],
)
def test_the_setting_says_who_is_asked(
    site: Path, monkeypatch: pytest.MonkeyPatch, which: Literal["auto"], there: bool, names: list[str]
) -> None:
    async def scene() -> None:
        sources = await open_lookups(which, Programs(None, site))
        assert [name for name, _ in sources] == names
        for _, source in sources:
            await source.close()

    if there:
        build(site, OLD)
    monkeypatch.setattr(sys, "executable", str(site / "python"))
    asyncio.run(scene())
