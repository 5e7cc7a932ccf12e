"""Which device each of Slurm's GPU numbers is. Outputs of `slurmd -G` are Slurm 22.05.8's, see tests/fixtures."""

from dataclasses import replace
from pathlib import Path

import pytest

from wattkeeper.model import GpuInfo, GpuUuid, Sharing
from wattkeeper.slurm.gres import Device, GresMap, MappingError, parse_gpu_list, parse_slurmd_g
from wattkeeper.units import Milliwatts

FIXTURES = Path(__file__).parent.parent / "fixtures" / "slurm-22.05"


def gpu(minor: int) -> GpuInfo:
    watts = Milliwatts(700_000)
    # NVML's order is the reverse of the minors' here, so that nothing can pass by mistaking one for the other
    return GpuInfo(GpuUuid(f"GPU-{minor}"), minor, 3 - minor, "NVIDIA H100", watts, watts, watts)


GPUS = tuple(gpu(minor) for minor in range(4))


def listed(name: str) -> GresMap:
    return GresMap(GPUS, parse_slurmd_g((FIXTURES / name).read_text()))


def minors(devices: dict[GpuUuid, Sharing]) -> list[str]:
    return [uuid.removeprefix("GPU-") for uuid in devices]


def test_job_gpus_count_lines_of_slurmd_not_minor_numbers() -> None:
    assert minors(listed("slurmd-G.minors-2-3.stderr").devices("0,1", None)) == ["2", "3"]
    assert minors(listed("slurmd-G.minors-3-1-2-0.stderr").devices("0,3", None)) == ["3", "0"]
    assert minors(listed("slurmd-G.plain.stderr").devices("1-2", None)) == ["1", "2"]


def test_gpus_with_shards_may_have_several_holders() -> None:
    assert set(listed("slurmd-G.shards.stderr").devices("0", None).values()) == {Sharing.SHARED}
    assert set(listed("slurmd-G.plain.stderr").devices("0", None).values()) == {Sharing.WHOLE}


def test_uuids_in_job_gpus_name_devices_themselves() -> None:
    assert minors(listed("slurmd-G.plain.stderr").devices("GPU-3,GPU-1", None)) == ["3", "1"]


def test_without_slurmd_minors_are_guessed_and_uuids_win_over_the_guess() -> None:
    guess = GresMap(GPUS)
    assert minors(guess.devices("0,1", "0,1")) == ["0", "1"]
    assert minors(guess.devices("0,1", "GPU-2,GPU-3")) == ["2", "3"]


def test_sources_that_disagree_are_both_named() -> None:
    with pytest.raises(MappingError, match=r"GPU-0, GPU-1 by slurmd -G, but CUDA_VISIBLE_DEVICES says GPU-2, GPU-3"):
        listed("slurmd-G.plain.stderr").devices("0,1", "GPU-2,GPU-3")
    assert minors(listed("slurmd-G.plain.stderr").devices("0,1", "GPU-1,GPU-0")) == ["0", "1"]


def test_the_setting_overrides_slurmd() -> None:
    override = GresMap(GPUS, parse_slurmd_g((FIXTURES / "slurmd-G.plain.stderr").read_text()), {0: 3, 1: GPUS[2].uuid})
    assert minors(override.devices("0,1", None)) == ["3", "2"]
    with pytest.raises(MappingError, match=r"SLURM_JOB_GPUS has 2, which gpus.map lacks"):
        override.devices("2", None)


@pytest.mark.parametrize(
    ("job_gpus", "words"),
    [
        ("4", "slurmd -G lists only 4 GPUs"),
        ("GPU-9", "the driver has no such GPU"),
        ("0;1", "is no list of GPUs"),
        ("0,x", "is no list of GPUs"),
    ],
)
def test_a_gpu_that_cannot_be_named_is_an_error(job_gpus: str, words: str) -> None:
    with pytest.raises(MappingError, match=words):
        listed("slurmd-G.plain.stderr").devices(job_gpus, None)


def test_a_file_the_driver_does_not_know_is_told_at_start() -> None:
    two = GresMap(GPUS[:2], parse_slurmd_g((FIXTURES / "slurmd-G.minors-2-3.stderr").read_text()))
    assert [trouble.split(",")[0] for trouble in two.troubles()] == [
        "gres.conf lists /dev/nvidia2 as GPU 0",
        "gres.conf lists /dev/nvidia3 as GPU 1",
    ]
    assert listed("slurmd-G.plain.stderr").troubles() == ()


def test_lists_are_read_without_repeats() -> None:
    assert parse_gpu_list("0-2,1,2") == (0, 1, 2)
    assert parse_gpu_list("") == ()


def cut_up(minor: int, *slices: int) -> GpuInfo:
    """A GPU in MIG mode."""
    return replace(gpu(minor), instances=tuple((f"MIG-{minor}-{place}", count) for place, count in enumerate(slices)))


def test_a_mig_instance_is_a_part_of_its_gpu() -> None:
    guess = GresMap((gpu(0), cut_up(1, 3, 1, 1)))
    assert guess.find("0", "MIG-1-0") == (Device(GPUS[1].uuid, Sharing.SHARED, 3),)
    assert guess.find("0,1", "MIG-1-1,MIG-1-0") == (Device(GPUS[1].uuid, Sharing.SHARED, 4),)
    assert guess.find("MIG-1-2", None) == (Device(GPUS[1].uuid, Sharing.SHARED, 1),)
    with pytest.raises(MappingError, match=r"names MIG-9, but the driver has no such GPU: .* restart the agent"):
        guess.find("0", "MIG-9")


AUTODETECTED = """\
slurmd-node1: Gres Name=gpu Type=h100 Count=1 Index=0 ID=7696487 File=/dev/nvidia0 Links=(null) Flags=HAS_FILE,ENV_NVML
slurmd-node1: Gres Name=gpu Type=nvidia_h100_3g.40gb Count=1 Index=1 ID=7696487 \
File=/dev/nvidia1,/dev/nvidia-caps/nvidia-cap111,/dev/nvidia-caps/nvidia-cap112 Links=(null) Flags=HAS_FILE,ENV_NVML
slurmd-node1: Gres Name=gpu Type=nvidia_h100_1g.10gb Count=1 Index=2 ID=7696487 \
File=/dev/nvidia1,/dev/nvidia-caps/nvidia-cap120,/dev/nvidia-caps/nvidia-cap121 Links=(null) Flags=HAS_FILE,ENV_NVML
"""


def test_instances_that_slurmd_found_tell_their_gpu_and_their_slices() -> None:
    found = GresMap((gpu(0), cut_up(1, 3, 1)), parse_slurmd_g(AUTODETECTED))
    assert found.troubles() == ()
    assert found.find("0", None) == (Device(GPUS[0].uuid, Sharing.WHOLE),)
    assert found.find("1", None) == (Device(GPUS[1].uuid, Sharing.SHARED, 3),)
    assert found.find("1,2", "MIG-1-1,MIG-1-0") == (Device(GPUS[1].uuid, Sharing.SHARED, 4),)
    with pytest.raises(MappingError, match="GPU-0 by slurmd -G, but CUDA_VISIBLE_DEVICES says MIG-1-0"):
        found.find("0", "MIG-1-0")


def test_instances_that_a_site_wrote_down_need_the_uuid() -> None:
    """As in gres.conf files of sites without AutoDetect: the line names the capability and no GPU."""
    text = "slurmd-n: Gres Name=gpu Type=1g.10gb Count=1 Index=0 ID=7696487 File=/dev/nvidia-caps/nvidia-cap66 (null)\n"
    written = GresMap((gpu(0), cut_up(1, 1, 1)), parse_slurmd_g(text))
    assert written.troubles() == ()
    assert written.find("0", "MIG-1-1") == (Device(GPUS[1].uuid, Sharing.SHARED, 1),)
    with pytest.raises(MappingError, match="nvidia-cap66, no nvidiaN: nothing is written"):
        written.find("0", None)


def test_the_name_that_older_drivers_give_an_instance() -> None:
    guess = GresMap((gpu(0), gpu(1)))
    assert [device.uuid for device in guess.find("0", "MIG-GPU-1/12/0")] == [GPUS[1].uuid]
