"""How long the agent fights for a limit."""

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from wattkeeper.core.drift import LOSSES_BEFORE_YIELDING, WINDOW_S, Cause, DriftHistory, Reaction, react

_gaps = st.lists(st.floats(0.0, 2 * WINDOW_S), min_size=1, max_size=20)
_settings = st.sampled_from(["repair", "report", "yield"])
Setting = Literal["repair", "report", "yield"]


@given(_gaps)
def test_no_more_than_three_repairs_in_any_ten_minutes_and_then_no_more(gaps: list[float]) -> None:
    history, now = DriftHistory(), 0.0
    repaired: list[float] = []
    given_up = False
    for gap in gaps:
        now += gap
        reaction, history = react(history, now, Cause.WRITER, "repair")
        if given_up:
            assert reaction is Reaction.YIELDED
        if reaction is Reaction.REPAIRED:
            repaired.append(now)
        else:
            assert reaction is Reaction.YIELDED
            assert len([at for at in repaired if now - at < WINDOW_S]) == LOSSES_BEFORE_YIELDING or given_up
            given_up = True
        assert history.yielded == given_up
        assert len([at for at in repaired if repaired[-1] - at < WINDOW_S]) <= LOSSES_BEFORE_YIELDING


@given(_gaps, st.sampled_from(Cause))
def test_a_site_that_wants_reports_gets_only_these(gaps: list[float], cause: Cause) -> None:
    history = DriftHistory()
    for now in gaps:
        assert react(history, now, cause, "report") == (Reaction.REPORTED, history)


@given(_gaps, st.sampled_from(["repair", "yield"]))
def test_resets_are_always_repaired_and_count_as_no_loss(gaps: list[float], setting: Setting) -> None:
    history, now = DriftHistory(), 0.0
    for gap in gaps:
        now += gap
        assert react(history, now, Cause.RESET, setting) == (Reaction.REPAIRED, history)


def test_a_site_that_yields_does_so_at_once() -> None:
    reaction, history = react(DriftHistory(), 5.0, Cause.WRITER, "yield")
    assert (reaction, history.yielded) == (Reaction.YIELDED, True)


@given(_settings, st.floats(0.0, 1e6))
def test_what_was_given_up_is_never_repaired(setting: Setting, now: float) -> None:
    for cause in Cause:
        reaction, history = react(DriftHistory((), yielded=True), now, cause, setting)
        assert reaction is not Reaction.REPAIRED
        assert history.yielded
