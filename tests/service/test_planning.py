"""How many trials a round gets: enough rounds for each task, and something left for every task."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crosstune.db.repositories.jobs import JobRow, JobState
from crosstune.db.repositories.tasks import TaskRow
from crosstune.service.planning import SMALLEST_ROUND, round_size

ROUND_TRIALS = 32


def job(trials: int | None = None, seconds: float | None = None, used: int = 0, used_s: float = 0.0) -> JobRow:
    return JobRow(
        id="job_x",
        project_id="default",
        network_id="net_x",
        target_id="tgt_x",
        target_key=1,
        state=JobState.RUNNING,
        priority=0,
        budget_trials=trials,
        budget_s=seconds,
        trials=used,
        searched_s=used_s,
        deadline=None,
        seed=0,
        options=None,
        cancel_requested=False,
        stop_reason=None,
        message="",
        untuned_latency_s=None,
        best_latency_s=None,
        build_id=None,
        event_sequence=0,
        created_at=0.0,
        started_at=None,
        ended_at=None,
        updated_at=0.0,
    )


def tasks(count: int, visited: int = 0) -> list[TaskRow]:
    return [
        TaskRow(n, "job_x", n, n, "wkl_x", "00", "conv2d", 1e6, 1, 0, int(n < visited), 0.0, None, None, False, [])
        for n in range(count)
    ]


def test_a_large_budget_gives_full_rounds() -> None:
    assert round_size(job(trials=100_000), tasks(20), ROUND_TRIALS) == ROUND_TRIALS
    assert round_size(job(), tasks(20), ROUND_TRIALS) == ROUND_TRIALS


def test_a_small_budget_of_trials_reaches_every_task() -> None:
    assert round_size(job(trials=24), tasks(6), ROUND_TRIALS) == 4
    assert round_size(job(trials=3), tasks(6), ROUND_TRIALS) == 1


def test_a_small_budget_of_seconds_reaches_every_task() -> None:
    assert round_size(job(seconds=60), tasks(60), ROUND_TRIALS) == 4


def test_once_every_task_was_visited_rounds_are_as_large_as_the_budget_allows() -> None:
    assert round_size(job(seconds=60, used_s=30), tasks(60, visited=60), ROUND_TRIALS) == SMALLEST_ROUND


@given(
    st.one_of(st.none(), st.integers(1, 10_000)),
    st.one_of(st.none(), st.floats(0.1, 10_000)),
    st.integers(1, 300),
    st.integers(0, 300),
)
def test_a_round_has_at_least_one_trial_and_never_more_than_are_left(
    trials: int | None, seconds: float | None, count: int, visited: int
) -> None:
    size = round_size(job(trials, seconds), tasks(count, min(visited, count)), ROUND_TRIALS)
    assert 1 <= size <= min(ROUND_TRIALS, trials or ROUND_TRIALS)
