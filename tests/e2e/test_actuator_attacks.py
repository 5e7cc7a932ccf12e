"""A compromised agent can set limits within each device's range and below the baseline, and nothing else.

And another user not even that. Whatever is tried here, the actuator lives on and answers an honest client soon.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.attackers import (
    AGENT_UID,
    BASELINE_MW,
    HONEST_GPU,
    MAX_MW,
    MIN_MW,
    Victim,
    flood,
    hand_written,
    many,
    nothing_changes,
    only_root,
    packet,
    refused,
)
from tests.lab.waiting import wait_until
from tests.property.packets import packets
from wattkeeper.privileged.evidence import VARIABLES
from wattkeeper.privileged.server import MOST_CONNECTIONS


@contextmanager
def process(**environment: str) -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", "input()"], env=environment, stdin=subprocess.PIPE)
    try:
        wait_until(lambda: b"=" in Path(f"/proc/{child.pid}/environ").read_bytes(), 2, "it runs", note=False)
        yield child.pid
    finally:
        child.kill()
        child.wait()
        assert child.stdin is not None
        child.stdin.close()


def test_what_an_agent_may_do(one: Victim) -> None:
    """And up to where: within the range, and never above what was there before."""
    gpu = one.uuids[0]
    assert one.ask(packet(do="save_baseline", gpu=gpu)) == {"is": BASELINE_MW}
    for limit_mw in (MIN_MW, 300_000, BASELINE_MW):
        assert one.ask(packet(do="set_limit", gpu=gpu, mw=limit_mw)) == {"is": limit_mw}
        assert one.state()[0][0] == limit_mw
    assert one.ask(packet(do="baseline", gpu=gpu)) == {"is": [BASELINE_MW, True]}
    with nothing_changes(one):
        for verb in ("set_limit", "give_back"):
            for limit_mw in (1, MIN_MW - 1, BASELINE_MW + 1, MAX_MW, MAX_MW + 1, 2**31 - 1):
                assert refused(one.ask(packet(do=verb, gpu=gpu, mw=limit_mw))), (verb, limit_mw)
    assert one.ask(packet(do="give_back", gpu=gpu, mw=BASELINE_MW)) == {"is": BASELINE_MW}
    assert one.ask(packet(do="baseline", gpu=gpu)) == {"is": [BASELINE_MW, False]}


def test_giving_back_a_gpu_first_poisons_no_baseline(one: Victim) -> None:
    """What was never set is lowered by another verb: what was there before stays what can be put back."""
    gpu = one.uuids[1]
    assert one.ask(packet(do="give_back", gpu=gpu, mw=MIN_MW)) == {"is": MIN_MW}
    assert one.ask(packet(do="save_baseline", gpu=gpu)) == {"is": BASELINE_MW}
    assert one.ask(packet(do="set_limit", gpu=gpu, mw=BASELINE_MW)) == {"is": BASELINE_MW}


@pytest.mark.parametrize("uid", [AGENT_UID, pytest.param(0, marks=only_root)])
def test_no_strange_question_does_anything(one: Victim, uid: int) -> None:
    with one.served("strange questions"), nothing_changes(one):
        for question in hand_written(one.uuids[2]):
            assert refused(one.ask(question, uid)), question
        assert one.ask(b"", uid) is None, "an empty packet ends a conversation"
    assert any("'set_limit' with other words than it takes" in line for line in one.told())


def test_devices_that_are_not_here_leave_no_trace(one: Victim) -> None:
    before = one.threads
    with nothing_changes(one):
        for number in range(100):
            gpu = f"GPU-{number:08x}-dead-beef-dead-beefdeadbeef"
            for question in (packet(do="set_limit", gpu=gpu, mw=MIN_MW), packet(do="claim", gpu=gpu)):
                answer = one.ask(question)
                assert refused(answer) and answer is not None and answer["kind"] == "lost", answer
        assert one.ask(packet(do="baseline", gpu="GPU-nowhere")) == {"is": [None, False]}
    assert one.threads <= before + 1


def test_a_device_by_another_spelling_is_another_device(one: Victim) -> None:
    """A second name for a GPU would get it a second baseline."""
    with nothing_changes(one):
        for name in (one.uuids[2].upper(), one.uuids[2][:-1], one.uuids[2] + "0", one.uuids[2].replace("-", "")):
            assert refused(one.ask(packet(do="set_limit", gpu=name, mw=MIN_MW))), name


_numbers = st.sampled_from([MIN_MW, MIN_MW - 1, BASELINE_MW, BASELINE_MW + 1, MAX_MW]) | st.integers(1, MAX_MW + 10)


def test_a_fuzzer_finds_nothing_either(one: Victim) -> None:
    """Whatever is asked, the limits are what the legal questions made of them, and the files are as they were."""
    ours = one.uuids[:HONEST_GPU]
    for gpu in ours:
        assert one.ask(packet(do="give_back", gpu=gpu, mw=BASELINE_MW)) == {"is": BASELINE_MW}
    files = one.state()[1]
    expected = one.state()[0]
    seen = {"asked": 0, "did": 0}

    @settings(max_examples=400, database=None, suppress_health_check=list(HealthCheck))
    @given(packets(ours, _numbers))
    def ask(question: bytes) -> None:
        answer = one.ask(question)
        seen["asked"] += 1
        if answer is not None and "is" in answer:
            asked = json.loads(question)
            if asked["do"] in ("set_limit", "give_back"):
                assert type(asked["mw"]) is int and MIN_MW <= asked["mw"] <= BASELINE_MW and answer["is"] == asked["mw"]
                expected[ours.index(asked["gpu"])] = asked["mw"]
            elif asked["do"] == "evidence":
                assert answer["is"].keys() <= VARIABLES
            seen["did"] += 1
        else:
            assert refused(answer)
        limits, now = one.state()
        assert limits == expected
        assert {name: text for name, text in now.items() if name.endswith(".json")} == {
            name: text for name, text in files.items() if name.endswith(".json")
        }
        assert now.keys() <= files.keys() | {f"{gpu}.ours" for gpu in ours}

    ask()
    print(f"fuzz: {seen['asked']} packets, {seen['did']} of them did what they may")
    assert seen["did"]


# --- evidence


def test_of_a_process_the_fixed_list_comes_back_and_no_secret(one: Victim) -> None:
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "hush",
        "SLURM_JOB_COMMENT": "hush",
        "X": "\nSLURM_JOB_ID=hush",
        "SLURM_": "hush",
    }
    with process(**secrets, SLURM_JOB_ID="7", SLURM_JOB_UID="0", SLURM_JOB_ACCOUNT="a" * 4000) as pid:
        answer = one.ask(packet(do="evidence", pid=pid))
    assert answer == {"is": {"SLURM_JOB_ID": "7", "SLURM_JOB_UID": str(os.getuid()), "SLURM_JOB_ACCOUNT": "a" * 256}}
    for pid in (1, one.actuator.pid, os.getpid(), os.getppid()):
        answer = one.ask(packet(do="evidence", pid=pid))
        assert answer is not None and (refused(answer) or answer["is"].keys() <= VARIABLES), answer
    for pid in (2**31 - 1, 4_194_305):
        assert refused(one.ask(packet(do="evidence", pid=pid)))


def test_huge_environments_read_by_many_at_once_are_bounded(one: Victim) -> None:
    tiny = {f"SLURM{number:x}": "" for number in range(60_000)}
    with ExitStack() as ended:
        pids = [ended.enter_context(process(**tiny, SLURM_JOB_ID="7")) for _ in range(6)]
        with one.served("huge environments"), many(one, MOST_CONNECTIONS) as held:
            answered = flood(held, [packet(do="evidence", pid=pid) for pid in pids])
        assert sum(map(bool, answered)) > MOST_CONNECTIONS / 2, "most got in, and were answered"
