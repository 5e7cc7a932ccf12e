"""What Slurm prints of a job, as a look-up reads it. Samples are of Slurm 22.05.8 and 24.11, see tests/fixtures."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.model import UNKNOWN
from wattkeeper.slurm.scontrol import NAME_BYTES, parse_scontrol, parse_squeue

FIXTURES = Path(__file__).parent.parent / "fixtures"


def line(name: str, qos: str = "normal", comment: str = "") -> str:
    return (
        f"JobId=7 JobName={name} UserId=al(1000) GroupId=domain users(513) MCS_label=N/A Priority=1 Nice=0 Account=ml "
        f"QOS={qos} JobState=RUNNING Reason=None Dependency=(null) WorkDir=/tmp Comment={comment}  StdErr=/dev/null \n"
    )


def row(name: bytes, qos: str = "normal", job_id: int = 7) -> bytes:
    return f"{job_id}|1000|ml|{qos}|".encode() + name[:NAME_BYTES].ljust(NAME_BYTES) + b"\n"


WORDS = st.lists(
    st.sampled_from(
        ["x", " ", "\n", "QOS=high", " QOS=high ", "MCS_label=N/A", "JobState=RUNNING", "UserId=root(0)", "JobName=y",
         " GroupId=root(0)", "Priority=1 Nice=0 Account=boss", "JobId=7", "Comment=", "|", "7|0|boss|high|", "\u00e9"]
    )
).map("".join)  # fmt: skip


@pytest.mark.parametrize("release", ["22.05", "24.11"])
def test_reads_what_each_release_prints(release: str) -> None:
    lines = (FIXTURES / f"slurm-{release}" / "scontrol-o-show-job.txt").read_text().splitlines(keepends=True)
    found = {looked.job_id: looked for text in lines if (looked := parse_scontrol(text)) is not None}
    assert len(found) == len(lines)
    assert (found[1].qos, found[1].job_name, found[1].account, found[1].uid) == ("powersave", "train", "ml", 0)
    assert {found[n].job_name for n in (2, 3, 4, 6)} == {"arr", "het"}


def test_without_accounting_account_and_qos_are_absent() -> None:
    found = parse_scontrol(line("x").replace("Account=ml QOS=normal", "Account=(null) QOS=(null)"))
    assert found is not None
    assert (found.account, found.qos) == (None, None)


def test_with_wckeys_the_qos_is_read_too() -> None:
    found = parse_scontrol(line("x").replace(" JobState=", " WCKey=* JobState="))
    assert found is not None
    assert found.qos == "normal"


@given(WORDS | st.text(), WORDS | st.text())
def test_no_name_and_no_comment_makes_scontrol_tell_another_qos(name: str, comment: str) -> None:
    found = parse_scontrol(line(name, comment=comment))
    assert found is None or (found.job_id, found.uid, found.qos, found.account) == (7, 1000, "normal", "ml")
    assert found is None or found.job_name == name


@given(st.lists(WORDS, min_size=1, max_size=3))
def test_of_several_tasks_scontrols_text_settles_nothing(names: list[str]) -> None:
    found = parse_scontrol("".join(line(name) for name in (*names, "last")))
    assert found is None


@given(st.lists(WORDS.map(str.encode) | st.binary(max_size=40), max_size=4))
def test_no_name_makes_squeue_tell_another_qos(names: list[bytes]) -> None:
    found = parse_squeue(b"".join(row(name, job_id=7 + n) for n, name in enumerate(names)))
    assert [(looked.job_id, looked.uid, looked.qos) for looked in found.values()] == [
        (7 + n, 1000, "normal") for n in range(len(names))
    ]


def test_a_name_that_may_have_been_cut_is_not_known() -> None:
    assert parse_squeue(row(b"x" * 2000))[7].job_name is UNKNOWN
    assert parse_squeue(row(b"x" * (NAME_BYTES - 1)))[7].job_name == "x" * (NAME_BYTES - 1)


@given(st.text() | WORDS)
def test_garbage_tells_nothing(text: str) -> None:
    assert parse_scontrol(text) is None
    assert parse_squeue(text.encode()) == {}


def test_a_row_with_a_byte_too_much_or_twice_tells_nothing() -> None:
    assert parse_squeue(row(b"x") + b"y") == {}
    assert parse_squeue(row(b"x")[:-1]) == {}
    assert parse_squeue(row(b"x") + row(b"x", "high")) == {}
