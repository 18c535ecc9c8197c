"""Which task is next, when a job has converged and what it will have reached."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstune.tuner.allocation import (
    LEAST_GAIN,
    Plan,
    TaskState,
    network_estimate_s,
    next_task,
    outlook,
    saving_s,
)
from crosstune.tuner.gains import Best

PLAN = Plan(round_trials=32)


def task(
    *bests_s: float, weight: int = 1, flops: float = 1e6, exhausted: bool = False, round_trials: int = 32
) -> TaskState:
    """With one round for each latency, a quarter of a second for each trial."""
    curve = tuple(Best(round_trials * (place + 1), best_s) for place, best_s in enumerate(bests_s))
    trials = round_trials * len(bests_s)
    return TaskState(weight, flops, 2e-3, curve, trials, 0.25 * trials, exhausted)


def test_every_task_gets_a_first_round_before_any_gets_a_second() -> None:
    assert next_task([task(1e-2, 1e-3), task(), task(5e-1)], PLAN) == 1


def test_the_task_that_is_likely_to_cost_most_gets_its_first_round_first() -> None:
    assert next_task([task(), task(weight=3), task(weight=2)], PLAN) == 1


def test_the_task_with_more_time_to_save_comes_first() -> None:
    assert next_task([task(1e-3, 9e-4), task(1e-3, 9e-4, weight=4)], PLAN) == 1


def test_the_task_whose_trials_cost_less_comes_first() -> None:
    dear = replace(task(1e-3, 1e-3), spent_s=100.0)
    assert next_task([dear, task(1e-3, 1e-3)], PLAN) == 1


def test_what_was_tried_often_promises_less() -> None:
    assert next_task([task(*[1e-3] * 9), task(1e-3)], PLAN) == 1


def test_what_other_jobs_tried_counts_as_tried() -> None:
    known = replace(task(1e-3), curve=(Best(500, 1e-3),), trials=0, spent_s=0.0)
    assert next_task([known, task(1e-3)], PLAN) == 1


def test_exhausted_tasks_are_left_alone() -> None:
    assert next_task([task(1e-3, exhausted=True), task(1e-6)], PLAN) == 1
    assert next_task([task(1e-3, exhausted=True), task(exhausted=True)], PLAN) is None


def test_a_task_at_the_limit_of_the_hardware_promises_nothing() -> None:
    at_limit, above = task(1e-3, 1e-3, flops=2e8), task(1e-3, 1e-3, flops=1e7)
    plan = replace(PLAN, peak_flops_per_s=2e11)
    assert next_task([at_limit, above], plan) == 1
    assert next_task([at_limit], plan) is None


def test_a_limit_that_a_task_is_beyond_is_not_believed() -> None:
    """Calibrated beside some load: the other tasks have reached half of what the fastest shows to be possible."""
    fastest, middling = task(1e-3, 1e-3, flops=2e8), task(1e-3, 1e-3, flops=1.1e8)
    plan = replace(PLAN, peak_flops_per_s=1e11)
    assert saving_s([fastest, middling], plan, 3600.0) > 3e-4
    assert next_task([middling, fastest], plan) == 0


def test_the_network_estimate_needs_every_task() -> None:
    assert network_estimate_s([task(1e-3, weight=3)]) == 3e-3
    unmeasured = TaskState(1, 1e6, None, (), 0, 0.0, False)
    assert network_estimate_s([task(1e-3), unmeasured]) is None
    assert outlook([task(1e-3), unmeasured], PLAN) is None


def test_a_task_that_was_given_up_does_not_keep_the_job_from_converging() -> None:
    given_up = TaskState(1, 1e6, None, (), 64, 10.0, True)
    found = outlook([task(*[1e-3] * 120), given_up], PLAN)
    assert found is not None and found.gain_per_minute < LEAST_GAIN


def test_a_job_has_converged_when_another_minute_brings_less_than_half_a_percent() -> None:
    fresh, old = [task(1e-3)], [task(*[1e-3] * 120)]
    early, late = outlook(fresh, PLAN), outlook(old, PLAN)
    assert early is not None and early.gain_per_minute > LEAST_GAIN and early.seconds_left > 60
    assert late is not None and late.gain_per_minute < LEAST_GAIN and late.seconds_left == 0


def test_a_minute_is_expected_to_bring_what_its_rounds_bring() -> None:
    (only,) = tasks = [task(1e-3)]
    expected = outlook(tasks, PLAN)
    assert expected is not None
    # A trial costs a quarter of a second: a minute takes the task from 32 trials to 272.
    exponent = -math.log(1 - expected.gain_per_minute) / math.log((32 + 240) / 32)
    assert exponent == pytest.approx(0.07, rel=0.05)
    assert saving_s([only], PLAN, 30.0) < saving_s([only], PLAN, 60.0) < 2 * saving_s([only], PLAN, 30.0)


@pytest.mark.parametrize(
    ("plan", "seconds"),
    [(Plan(32, trials_left=320, least_gain=0.0), 80.0), (Plan(32, seconds_left=100.0, least_gain=0.0), 100.0)],
)
def test_the_time_left_is_what_the_budget_allows(plan: Plan, seconds: float) -> None:
    found = outlook([task(1e-3), task(2e-3)], plan)
    assert found is not None
    assert found.seconds_left == pytest.approx(seconds, abs=8.0)
    assert found.latency_s < 3e-3


def test_a_job_that_is_to_use_its_whole_budget_never_converges_before() -> None:
    found = outlook([task(*[1e-3] * 60)], Plan(32, trials_left=10**7, least_gain=0.0))
    assert found is not None and found.seconds_left > 3600


@given(
    st.lists(
        st.builds(
            lambda bests_s, weight, exhausted: task(*sorted(bests_s, reverse=True), weight=weight, exhausted=exhausted),
            bests_s=st.lists(st.floats(1e-6, 1), max_size=8),
            weight=st.integers(1, 50),
            exhausted=st.booleans(),
        ),
        max_size=12,
    ),
    st.integers(1, 10_000),
)
def test_the_choice_is_an_open_task_and_forecasts_never_promise_more_than_there_is(
    tasks: list[TaskState], trials_left: int
) -> None:
    plan = replace(PLAN, trials_left=trials_left)
    chosen = next_task(tasks, plan)
    open_tasks = [place for place, one in enumerate(tasks) if not one.exhausted]
    assert (chosen in open_tasks) if open_tasks else chosen is None
    found, now_s = outlook(tasks, plan), network_estimate_s(tasks)
    if found is not None and now_s:
        assert 0 <= found.latency_s <= now_s * (1 + 1e-9)
        assert 0 <= found.gain_per_minute <= 1 and found.seconds_left >= 0
