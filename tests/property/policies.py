"""Strategies for whole policies, GPUs with a baseline, and jobs that ask."""

import dataclasses

from hypothesis import strategies as st
from tests.property import whens

from wattkeeper.core.policy import Amount, Cap, Ceiling, Keyword, Percent, Policy, Requests, Rule, Watts
from wattkeeper.model import GpuContext, JobFacts, Source
from wattkeeper.units import BasisPoints, Milliwatts

COMMENTS = (
    None,
    "",
    "power=150W",
    "power=40%",
    "power=1W",
    "power=9kW",
    "power=baseline",
    "power=max",
    "power=min",
    "power=eco",
    "power=nosuch",
    "power=150W power=160W",
)

milliwatts = st.integers(1_000, 400_000).map(Milliwatts)
amounts: st.SearchStrategy[Amount] = (
    milliwatts.map(Watts)
    | st.integers(1, 20_000).map(lambda points: Percent(BasisPoints(points)))
    | st.sampled_from(Keyword)
)
_models = st.sampled_from(["*V100*", "*A100*", "*"])
caps = st.lists(st.tuples(_models, amounts), min_size=1, max_size=2).map(lambda choices: Cap("cap", tuple(choices)))
ramps = st.sampled_from([0, 600, 6 * 3600])
_requests = st.builds(Requests, caps, caps, st.sampled_from(["clamp", "deny"]))


@st.composite
def policies(draw: st.DrawFn, whens: st.SearchStrategy[object] = whens.whens, most: int = 3) -> Policy:
    rules = draw(st.lists(st.tuples(whens, caps, st.none() | _requests), max_size=most))
    ceilings = draw(st.lists(st.tuples(whens, caps, ramps), max_size=2))
    return Policy(
        rules=tuple(Rule(f"rule{n}", w, c, r, Source("p.yaml", n)) for n, (w, c, r) in enumerate(rules)),  # type: ignore[arg-type]
        ceilings=tuple(
            Ceiling(f"ceiling{n}", w, c, Source("p.yaml", 50 + n), ramp)  # type: ignore[arg-type]
            for n, (w, c, ramp) in enumerate(ceilings)
        ),
        idle=draw(caps),
        shared_gpus=draw(st.sampled_from(["highest", "lowest"])),
        profiles={"eco": draw(caps)},
    )


contexts = st.builds(GpuContext, whens.gpus, st.none() | milliwatts, st.booleans())
known_contexts = st.builds(GpuContext, whens.gpus, milliwatts, st.booleans())


def jobs(*, unknown: bool) -> st.SearchStrategy[JobFacts]:
    """Jobs with a comment, of two users."""
    return st.builds(
        lambda job, comment, uid: dataclasses.replace(job, comment=comment, uid=uid),
        whens.jobs(unknown=unknown),
        st.sampled_from(COMMENTS),
        st.sampled_from([1000, 1001]),
    )
