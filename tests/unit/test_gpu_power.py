"""--gpu-power: what the SPANK plugin lets through is what the agent understands, and the agent trusts none of it."""

import ctypes
import json
import shutil
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.lab.processes import run
from tests.lab.spec import REPO

from wattkeeper.core.request import Asked, Malformed, parse_comment
from wattkeeper.model import Unknown
from wattkeeper.slurm.hook_event import MAX_ENVIRONMENT, EventKind, parse_event
from wattkeeper.text import printable

SOURCES = REPO / "deploy" / "slurm" / "spank"
CORPUS = [json.loads(line) for line in (Path(__file__).parents[1] / "fixtures/comments.jsonl").read_text().splitlines()]
Problem = Callable[[bytes], bytes | None]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """The plugin's own word on a value: what is wrong with it, or None."""
    if shutil.which("gcc") is None:
        pytest.skip("not installed on this machine: gcc")
    built = tmp_path_factory.mktemp("spank") / "request.so"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    run(["gcc", *flags, "-o", str(built), str(SOURCES / "request.c")], {"PATH": "/usr/bin:/bin"})
    function = ctypes.CDLL(str(built)).request_problem
    function.argtypes, function.restype = [ctypes.c_char_p], ctypes.c_char_p

    def ask(value: bytes) -> bytes | None:
        answer: bytes | None = function(value)
        return answer

    return ask


def is_token(comment: str) -> bool:
    return comment.lower().startswith("power=") and not set(comment) & set(" \t\n;,\"'`\xa0")


VALUES = [(verdict, comment[6:], why) for verdict, comment, why in CORPUS if is_token(comment)]


@pytest.mark.parametrize(("verdict", "value", "why"), VALUES)
def test_the_plugin_says_of_a_value_what_the_agent_says_of_a_comment(
    problem: Problem, verdict: str, value: str, why: str
) -> None:
    assert (problem(value.encode()) is None) == (verdict == "asked"), why


amounts = st.from_regex(r"[0-9]{1,10}(\.[0-9]{0,7})?([kKmM]?[wW]|%)?", fullmatch=True)
zeros = st.from_regex(r"0{1,3}(\.0{0,6}[01]{0,2})?([kK]?[wW]|%)?", fullmatch=True)
names = st.text(string.ascii_letters + string.digits + "_.-%é", max_size=70)


@given(amounts | zeros | names | st.sampled_from(["MIN", "Max", "minimum", "baseline", "defaults"]))
def test_the_plugin_and_the_agent_agree_on_any_token(problem: Problem, value: str) -> None:
    assert (problem(value.encode()) is None) == isinstance(parse_comment(f"power={value}"), Asked)


@given(st.binary(max_size=100).filter(lambda value: b"\0" not in value))
def test_the_plugin_survives_any_bytes_and_lets_nothing_through_that_the_agent_would_not(
    problem: Problem, value: bytes
) -> None:
    if problem(value) is None:
        assert isinstance(request_of({"SPANK_WATTKEEPER_GPU_POWER": value}), Asked)


@pytest.mark.parametrize("value", [b"", b" ", b"250 W", b"250W ", b"\xff", b"9" * 10**6, b"power=250W"])
def test_the_plugin_refuses(problem: Problem, value: bytes) -> None:
    assert problem(value)


def request_of(more: dict[str, bytes]) -> object:
    """The request in a Prolog's environment with these variables."""
    environment = {"SLURM_JOB_ID": b"12", "SLURM_JOB_UID": b"1000", **more}
    raw = b"".join(name.encode() + b"=" + value + b"\0" for name, value in environment.items())
    comment = parse_event(EventKind.PROLOG, raw).job.comment
    assert not isinstance(comment, Unknown)
    return parse_comment(comment)


@pytest.mark.parametrize("comment", [None, b"power=300W", b"power=25OW", b'{"power": 300}', b"no request"])
@pytest.mark.parametrize("value", ["250W", "250", "0.25kW", "70%", "eco", "Baseline"])
def test_the_option_wins_over_the_comment(value: str, comment: bytes | None) -> None:
    more = {} if comment is None else {"SLURM_JOB_COMMENT": comment}
    assert request_of({**more, "SPANK_WATTKEEPER_GPU_POWER": value.encode()}) == parse_comment(f"power={value}")


@pytest.mark.parametrize(
    "value",
    ["", "25OW", "250W power=250W", "eco;", '250W"}', "power=250W", "250W\npower=250W", "\u202e052", "9" * 5000],
)
def test_a_forged_option_is_malformed_and_shown_safely(value: str) -> None:
    request = request_of({"SPANK_WATTKEEPER_GPU_POWER": value.encode(), "SLURM_JOB_COMMENT": b"power=250W"})
    assert isinstance(request, Malformed)
    assert request.text == printable(value, 64)


@given(st.binary(max_size=300).filter(lambda value: b"\0" not in value))
def test_no_option_asks_for_anything_but_its_own_value(value: bytes) -> None:
    """Whatever the bytes are, no quote, break or bracket in them makes a second request."""
    request = request_of({"SPANK_WATTKEEPER_GPU_POWER": value})
    if isinstance(request, Asked):
        text = value.decode(errors="replace").strip()
        assert request.value == (parse_comment(f"power={''.join(text.split())}")).value  # type: ignore[union-attr]
    else:
        assert isinstance(request, Malformed)


def test_an_option_of_any_length_costs_no_more_than_a_short_one() -> None:
    comment = parse_event(
        EventKind.PROLOG,
        b"SLURM_JOB_ID=1\0SLURM_JOB_UID=1\0SPANK_WATTKEEPER_GPU_POWER=" + b"a" * (MAX_ENVIRONMENT - 100),
    ).job.comment
    assert isinstance(comment, str)
    assert len(comment) < 200
