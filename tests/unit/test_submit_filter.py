"""The submit filter's Lua: its verdict on a comment is the agent's, in any Lua that Slurm is built with."""

import json
import shutil
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.lab.spec import REPO

from wattkeeper.core.request import Asked, Malformed, parse_comment

CORPUS = [json.loads(line) for line in (Path(__file__).parents[1] / "fixtures/comments.jsonl").read_text().splitlines()]
MODULE = REPO / "deploy" / "slurm" / "lua" / "wattkeeper.lua"
ASK = """
local filter = dofile(arg[1])
for line in io.lines() do
  local comment = line:gsub("..", function(hex) return string.char(tonumber(hex, 16)) end)
  print((filter.verdict(comment)))
  io.flush()
end
"""


class Filter:
    """An interpreter with the module, that is asked about one comment after another."""

    def __init__(self, interpreter: str, script: Path) -> None:
        self._child = subprocess.Popen(
            [interpreter, str(script), str(MODULE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def verdict(self, comment: bytes) -> str:
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(comment.hex() + "\n")
        self._child.stdin.flush()
        return self._child.stdout.readline().strip()

    def close(self) -> None:
        self._child.communicate()


@pytest.fixture(scope="module", params=["lua5.1", "lua5.4"])
def submit_filter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filter]:
    if shutil.which(request.param) is None:
        pytest.skip(f"not installed on this machine: {request.param}")
    script = tmp_path_factory.mktemp("lua") / "ask.lua"
    script.write_text(ASK)
    asked = Filter(request.param, script)
    yield asked
    asked.close()


def agents_verdict(comment: bytes) -> str:
    """What the agent says to the same bytes in a hook's environment."""
    request = parse_comment(comment.decode(errors="replace"))
    return "malformed" if isinstance(request, Malformed) else "asked" if isinstance(request, Asked) else "none"


def as_bytes(comment: str) -> bytes:
    return comment.encode(errors="surrogatepass")


@pytest.mark.parametrize(("verdict", "comment", "why"), CORPUS)
def test_the_agents_verdict(verdict: str, comment: str, why: str) -> None:
    assert agents_verdict(as_bytes(comment)) == verdict, why


def test_the_filters_verdict(submit_filter: Filter) -> None:
    wrong = [
        (comment, why, found)
        for verdict, comment, why in CORPUS
        if (found := submit_filter.verdict(as_bytes(comment))) != verdict
    ]
    assert not wrong


PIECES = [
    *("power=", "POWER=", "power", "=", "250", "W", "k", "m", "%", "eco", "min", "0", ".", "-", "E", "true", "null"),
    *(' "power": ', '"', "{", "}", "[", "]", ":", ",", "\\", "\\u0020", "\\u2003", "\\u00e9", "\\n", "NaN", "a" * 60),
    *(" ", "\n", "\t", "\x00", "\x1f", "\x7f", ";", "'", "\x85", "\xa0", "\u2028", "\u201c", "\u200b", "\u212a", "🔥"),
]
near_misses = st.lists(st.sampled_from(PIECES), max_size=14).map("".join).map(as_bytes)
tokens = st.lists(st.sampled_from(PIECES), max_size=6).map(lambda found: as_bytes("power=" + "".join(found)))
json_text = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(string.printable + "\xa0é", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("power"), inner),
    max_leaves=8,
)
amounts = st.from_regex(r"[ \u00a0]?[0-9]{1,10}(\.[0-9]{0,7})?[ \u2003\n]?([kKmM]?[wW]|%)?[ ]?", fullmatch=True)
objects = st.builds(
    lambda value, others, dumped: as_bytes(json.dumps({**others, "Power": value}, ensure_ascii=dumped)),
    amounts | json_text,
    st.dictionaries(st.text(max_size=3) | st.just("power"), json_text, max_size=3),
    st.booleans(),
)


@given(
    st.binary(max_size=60)
    | near_misses
    | tokens
    | objects
    | amounts.map(lambda text: as_bytes(f"power={text}"))
    | st.tuples(st.binary(max_size=3), tokens, st.binary(max_size=3)).map(b" ".join)
)
@example(b"\xf0\xe2\x80\x83power=250W\xe2\x80\x83")
@example(b"\xc2power=250W\xa0")
@example(b"\xe2\x80power=250W")
def test_the_filter_and_the_agent_agree_on_any_bytes(submit_filter: Filter, comment: bytes) -> None:
    assert submit_filter.verdict(comment) == agents_verdict(comment)


@pytest.mark.parametrize(
    "comment",
    [
        "{" * 10**6 + "}",
        '{"power":' * 10**5 + "1" + "}" * 10**5,
        '{"power": ' + "[" * 10**5 + "]" * 10**5 + "}",
        "power=" * 10**5,
        "power=1 " * 10**5,
        "power=7" + " " * 10**6,
        " " * 10**6,
        ("power=7" + "\xa0" * 50) * 10**4,
        '{"a": "' + '\\"' * 10**5 + '"}',
        "\xff" * 10**6,
    ],
)
def test_hostile_comments_cost_slurmctld_little(submit_filter: Filter, comment: str) -> None:
    """Time grows with the length and not with its square, which would outlast this suite's time limit."""
    assert submit_filter.verdict(as_bytes(comment)) in {"none", "asked", "malformed"}
