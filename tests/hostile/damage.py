"""Damaged state files: random bytes, bits that flipped, fields at their extremes, files cut off or too long."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.hostile.bases import BASES

SIZE = 362_000
"""About that of a state file. Offsets beyond its end begin at its start again: see ``tests.hostile.worker``."""

_SLOT = 24  # magic, version, size and sequence come before the two slots
_USED = _SLOT + 7_500  # the node, and of GPU 0 all but most of its segments
_WORDS = (0, 1, 2, 9, 10_001, 2**20, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
_LONGS = (0, 1, 2**32, 10**18, 2**61 - 1, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)

Edit = tuple[int, str]


@dataclass(frozen=True)
class Damage:
    """What is done to the file of a base: bytes (in hex) replaced at offsets, and another size."""

    base: str
    edits: tuple[Edit, ...]
    size: int | None = None


def _places(step: int) -> st.SearchStrategy[int]:
    used = st.integers(0, _USED // step - 1)
    anywhere = st.integers(0, (SIZE - 8) // step - 1)
    return st.one_of(used, used, used, anywhere).map(lambda place: place * step)


def _number(step: int, extremes: tuple[int, ...]) -> st.SearchStrategy[Edit]:
    values = st.one_of(st.sampled_from(extremes), st.integers(0, 256**step - 1))
    return st.tuples(_places(step), values.map(lambda value: value.to_bytes(step, "little").hex()))


_junk = st.tuples(_places(1), st.binary(min_size=1, max_size=64).map(bytes.hex))
_lots = st.tuples(_places(1), st.binary(min_size=256, max_size=8_192).map(bytes.hex))
_edit = st.one_of(_number(4, _WORDS), _number(8, _LONGS), _number(2, (0, 1, 10_001, 65_535)), _junk)
_size = st.one_of(st.none(), st.none(), st.none(), st.integers(0, SIZE + 4_096))

damages = st.one_of(
    st.builds(Damage, st.sampled_from(BASES), st.lists(_edit, min_size=1, max_size=6).map(tuple), _size),
    st.builds(Damage, st.sampled_from(BASES), st.lists(_lots, min_size=1, max_size=2).map(tuple), _size),
)
