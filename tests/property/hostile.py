"""Text as nobody would write it who means well, and what is asked of whatever shows it."""

import json
import unicodedata
from collections.abc import Iterator, Mapping

from hypothesis import strategies as st

PIECES = (
    "\x1b[2J\x1b]0;owned\x07", "\n", "\r\n", "\0", "\t", "\x7f", "\x9b31m", "\u202e", "\u2066", "\u200b", "\u200f",
    "\ufeff", "\u2028", "\u2029", "\xad", "\ud800", "\udfff", "\U000e0041", "\u3164", "\ufe0f", "{{", "}}", "%s%n",
    '"', "'", "\\", r"\n", '"} 1\nwattkeeper_forged 1', "power=", "power=250W", "[bold red]", "$(reboot)", "`id`",
    ";", ",", "=", "../../etc/passwd", "<script>", "&amp;", "alice", "ml-vision", "é", "電力", "😀",
)  # fmt: skip

hostile = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), min_size=1, max_size=8).map("".join)
"""A field that a user had a hand in."""

huge = st.builds(lambda piece, most: (piece * most)[:most], st.sampled_from(PIECES), st.sampled_from([1_100, 20_000]))
"""The same, longer than anything that shows it."""

FIELDS = (
    "SLURM_JOB_USER", "SLURM_JOB_ACCOUNT", "SLURM_JOB_PARTITION", "SLURM_JOB_RESERVATION", "SLURM_JOB_CONSTRAINTS",
    "SLURM_JOB_COMMENT", "SLURM_JOB_NAME", "SLURMD_NODENAME", "SLURM_CLUSTER_NAME", "SLURM_JOB_SLUID", "SPANK_X",
)  # fmt: skip

environments = st.dictionaries(st.sampled_from(FIELDS), hostile | huge, min_size=1).map(
    lambda fields: {name: text.replace("\0", "") for name, text in fields.items()}
)
"""What a hook may find in its environment: an environment holds no NUL, only ends its entries with one."""

MOST = 600
"""No single text that is shown is longer than this."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})


def unseen(text: str) -> list[str]:
    """The characters of a text that draw nothing, or draw elsewhere than where they stand."""
    return [char for char in text if unicodedata.category(char) in _UNSEEN]


def harmless(text: str, most: int = MOST) -> None:
    """Fails for a text that could do something to whoever looks at it."""
    assert unseen(text) == [], ascii(text[:300])
    assert len(text) <= most, f"{len(text)} characters: {text[:100]!a}"


def harmless_lines(text: str, most: int = MOST) -> None:
    """The same for lines, of which one outlet prints several."""
    for line in text.split("\n"):
        harmless(line, most)


def harmless_json(value: object) -> None:
    """The same for every text in a JSON value, as its reader gets it."""
    for text in _texts(value):
        harmless(text)
    json.dumps(value).encode("ascii")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
