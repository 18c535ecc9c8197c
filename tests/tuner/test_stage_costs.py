"""How many programs are lowered follows from what lowering and measuring cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstune.tuner.contracts import SHORTLIST
from crosstune.tuner.stage_costs import FEWEST, KEPT, MOST, SEARCH_SHARE, Shortlists, StageCosts

KEY = ("workload", "target")


def test_as_many_are_lowered_as_fit_into_the_searchs_share_of_a_round() -> None:
    costs = StageCosts(programs=100, searching_s=1.0, trials=10, measuring_s=4.0)
    searching_s = costs.shortlist * 0.01
    assert FEWEST < costs.shortlist < MOST
    assert abs(searching_s / (searching_s + 0.4) - SEARCH_SHARE) < 1e-9


def test_the_dearer_measuring_is_the_more_programs_are_compared_before() -> None:
    cheap, dear = StageCosts(100, 1.0, 10, 2.0), StageCosts(100, 1.0, 10, 6.0)
    assert dear.shortlist == pytest.approx(3 * cheap.shortlist)


def test_before_a_workload_had_a_round_the_number_is_fixed() -> None:
    shortlists = Shortlists()
    assert shortlists.of(KEY) == SHORTLIST
    shortlists.note(KEY, StageCosts(0, 0.0, 1, 0.5))  # nothing was searched: the default schedule alone
    assert shortlists.of(KEY) == SHORTLIST
    shortlists.note(KEY, StageCosts(100, 1.0, 10, 2.0))
    assert shortlists.of(KEY) < SHORTLIST
    assert shortlists.of(("workload", "another target")) == SHORTLIST


def test_what_is_remembered_has_an_end() -> None:
    shortlists = Shortlists()
    for number in range(KEPT + 1):
        shortlists.note((str(number), ""), StageCosts(100, 1.0, 10, 2.0))
    assert shortlists.of(("0", "")) == SHORTLIST != shortlists.of(("1", ""))


@given(st.integers(0, 10**4), st.floats(0, 1e3), st.integers(0, 10**3), st.floats(0, 1e4))
def test_there_are_always_some_and_never_too_many(programs: int, search_s: float, trials: int, run_s: float) -> None:
    assert FEWEST <= StageCosts(programs, search_s, trials, run_s).shortlist <= MOST
