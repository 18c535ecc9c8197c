"""How latency falls with trials: the expectation is what committed runs show, moved by what a job sees."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstune.tuner.gains import EXPONENT, Best, after, exponents, observed

RUNS = Path(__file__).parents[2] / "benchmarks" / "results" / "guided_search.json"
curves = st.lists(st.tuples(st.integers(1, 500), st.floats(1e-6, 1.0)), max_size=12).map(
    lambda points: [
        Best(trials, latency_s)
        for trials, latency_s in zip(
            sorted(one for one, _ in points), sorted((one for _, one in points), reverse=True), strict=True
        )
    ]
)


def falls(exponent: float, *trials: int) -> list[Best]:
    """A task that gains just so."""
    return [Best(count, count**-exponent) for count in trials]


def test_the_expectation_is_what_the_committed_runs_with_the_attention_ranker_show() -> None:
    seen = []
    for task in json.loads(RUNS.read_text())["data"]["tasks"]:
        for run in task["runs"]:
            if run["ranker"] == "attention":
                best_s = {trials: min(s for at, s in run["quick_s"] if at <= trials) for trials in (8, 16, 32, 64)}
                seen += [math.log(best_s[half] / best_s[2 * half]) / math.log(2) for half in (8, 16, 32)]
    assert fmean(seen) == pytest.approx(EXPONENT, rel=0.2)


def test_twice_the_trials_take_the_same_share_off_whatever_there_were_before() -> None:
    few, many = after(Best(10, 1.0), 10, EXPONENT), after(Best(100, 1.0), 100, EXPONENT)
    assert few.latency_s == pytest.approx(many.latency_s) == pytest.approx(2**-EXPONENT)


def test_nothing_is_expected_below_the_limit_of_the_hardware() -> None:
    assert after(Best(10, 1.0), 10**6, EXPONENT, floor_s=0.9).latency_s == 0.9
    assert after(Best(10, 0.8), 10**6, EXPONENT, floor_s=0.9).latency_s == 0.8


def test_without_any_trial_of_its_own_a_task_gains_as_all_do() -> None:
    assert exponents([[]]) == [pytest.approx(EXPONENT)]
    assert exponents([]) == []


def test_a_task_that_gained_more_than_others_is_expected_to_and_lifts_the_others_a_little() -> None:
    fast, slow = exponents([falls(0.3, 8, 16, 32), falls(0.0, 8, 16, 32)])
    alone = exponents([falls(0.0, 8, 16, 32)])[0]
    assert fast > EXPONENT > slow > alone


def test_what_the_first_round_found_says_nothing_of_later_ones() -> None:
    early = [Best(1, 1.0), Best(8, 0.1), Best(64, 0.1)]
    assert observed(early) == (0.0, 0.0)
    assert observed([Best(16, 1.0), Best(64, 0.5)]) == (pytest.approx(math.log(2)), pytest.approx(math.log(4)))


@given(st.lists(curves, max_size=6), st.integers(0, 1000))
def test_expectations_are_never_negative_and_more_trials_never_hurt(tasks: list[list[Best]], more: int) -> None:
    for curve, exponent in zip(tasks, exponents(tasks), strict=True):
        assert exponent >= 0.0
        if curve:
            assert after(curve[-1], more + 1, exponent).latency_s <= after(curve[-1], more, exponent).latency_s
