"""Questions to the actuator that no agent of ours asks, most of them close to one that it would."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

VERBS = ("set_limit", "give_back", "claim", "save_baseline", "baseline", "evidence")
STRANGE_VERBS = (
    "", "SET_LIMIT", "set_limit ", "require", "_set", "_take", "_write", "__init__", "__class__", "__dict__", "forget",
    "release", "_nvml", "close", "restore", "eval", "do", "set_limit\0", "baseline/../x", "s\u0435t_limit",
)  # fmt: skip
STRANGE_GPUS: tuple[Any, ...] = (
    "", "GPU-", "GPU-*", "GPU-0/../../../etc/passwd", "../../etc/passwd", "/etc/passwd", "GPU-..", "GPU-a\n",
    "GPU-a\0b",
    "GPU-é", "GPU-٣", "GPU-" + "a" * 61, "GPU-" + "a" * 400, "MIG-0000", "0", "all", "gpu-0", "GPU_0", "GPU-%s%n",
    0, -1, None, True, [], {}, ["GPU-0"], {"GPU-0": 1}, 1.5,
)  # fmt: skip
STRANGE_NUMBERS: tuple[Any, ...] = (
    0, -1, -(2**31), 2**31, 2**32 + 250_000, 2**63, 2**64, 10**300, 1.5, 250_000.0, 1e300, float("nan"), float("inf"),
    float("-inf"), True, False, None, "250000", "", [], {}, [250_000], "0x3d090",
)  # fmt: skip

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
_trees = st.recursive(
    _scalars,
    lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(max_size=5), one, max_size=4),
    max_leaves=8,
)


def packets(uuids: Sequence[str], numbers: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    """Anything from noise to questions that are in order; about these devices, and about others."""
    words = {
        "do": st.sampled_from(VERBS) | st.sampled_from(STRANGE_VERBS) | _trees,
        "gpu": st.sampled_from(list(uuids)) | st.sampled_from(STRANGE_GPUS) | _trees,
        "mw": numbers | st.sampled_from(STRANGE_NUMBERS) | st.integers(),
        "pid": st.sampled_from([1, 2, 0, -1, 2**31 - 1, 2**31]) | st.sampled_from(STRANGE_NUMBERS),
    }
    in_order = st.builds(
        lambda verb, gpu, mw: {"do": verb, "gpu": gpu, **({"mw": mw} if verb in VERBS[:2] else {})},
        st.sampled_from(VERBS[:5]),
        st.sampled_from(list(uuids)),
        numbers,
    )
    questions = (
        in_order
        | st.fixed_dictionaries({"do": words["do"]}, optional={key: words[key] for key in words if key != "do"})
        | _trees
    )
    texts = st.builds(lambda question, spread: json.dumps(question, indent=spread), questions, st.none() | st.just(1))
    whole = st.builds(lambda text, code: text.encode(code, "surrogatepass"), texts, _codes)
    return whole | st.builds(_damaged, whole, st.integers(0, 600), st.binary(max_size=5)) | st.binary(max_size=700)


_codes = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "utf-32-le", "utf-8-sig"])


def _damaged(whole: bytes, at: int, noise: bytes) -> bytes:
    """With something else in one place, or cut off there."""
    at %= len(whole) + 1
    return whole[:at] + noise + whole[at + len(noise) :] if noise else whole[:at]
