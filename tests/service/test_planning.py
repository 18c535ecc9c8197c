"""How many trials a round gets, and when a job has converged."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from crosstune.db.engine import transaction
from crosstune.db.repositories import devices, jobs, records, steps, tasks, workers
from crosstune.db.repositories.jobs import JobRow, JobState
from crosstune.db.repositories.networks import NetworkState
from crosstune.db.repositories.tasks import TaskRow
from crosstune.service.planning import SMALLEST_ROUND, plan_next, round_size, task_state

ROUND_TRIALS = 32


def job(trials: int | None = None, seconds: float | None = None, used: int = 0, used_s: float = 0.0) -> JobRow:
    return JobRow(
        id="job_x",
        project_id="default",
        network_id="net_x",
        target_id="tgt_x",
        target_key=1,
        network_state=NetworkState.READY,
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


def rows(count: int, visited: int = 0) -> list[TaskRow]:
    return [
        TaskRow(n, "job_x", n, n, "wkl_x", "00", "conv2d", 1e6, 1, 0, int(n < visited), 0.0, None, None, False, [])
        for n in range(count)
    ]


def test_a_large_budget_gives_full_rounds() -> None:
    assert round_size(job(trials=100_000), rows(20), ROUND_TRIALS) == ROUND_TRIALS
    assert round_size(job(), rows(20), ROUND_TRIALS) == ROUND_TRIALS


def test_a_small_budget_of_trials_reaches_every_task() -> None:
    assert round_size(job(trials=24), rows(6), ROUND_TRIALS) == 4
    assert round_size(job(trials=3), rows(6), ROUND_TRIALS) == 1


def test_a_small_budget_of_seconds_reaches_every_task() -> None:
    assert round_size(job(seconds=60), rows(60), ROUND_TRIALS) == 4


def test_once_every_task_was_visited_rounds_are_as_large_as_the_budget_allows() -> None:
    assert round_size(job(seconds=60, used_s=30), rows(60, visited=60), ROUND_TRIALS) == SMALLEST_ROUND


@given(
    st.one_of(st.none(), st.integers(1, 10_000)),
    st.one_of(st.none(), st.floats(0.1, 10_000)),
    st.integers(1, 300),
    st.integers(0, 300),
)
def test_a_round_has_at_least_one_trial_and_never_more_than_are_left(
    trials: int | None, seconds: float | None, count: int, visited: int
) -> None:
    size = round_size(job(trials, seconds), rows(count, min(visited, count)), ROUND_TRIALS)
    assert 1 <= size <= min(ROUND_TRIALS, trials or ROUND_TRIALS)


ME = 1
NOW = 1000.0


def running(connection: Connection, make: Any, *graphs: str, budget_trials: int = 1000) -> JobRow:
    network = make.network(connection, "net of " + " ".join(graphs), graphs or ("conv", "pool"))
    job = jobs.create(
        connection,
        project_id="default",
        network_id=network.id,
        target_key=make.target(connection).key,
        budget_trials=budget_trials,
        budget_s=None,
    )
    return jobs.transition(connection, job.id, JobState.RUNNING)


def rounds(connection: Connection, job: JobRow, count: int, latency_s: float, trials: int = 32) -> None:
    """Of every task, all with the same best latency; a trial costs a quarter of a second."""
    for task in tasks.of_job(connection, job.id):
        for _ in range(count):
            tasks.count_round(
                connection,
                task.key,
                trials=trials,
                searched_s=trials / 4,
                best_latency_s=latency_s,
                default_latency_s=1.0,
                exhausted=False,
            )


def test_a_job_goes_on_while_another_minute_promises_more_than_half_a_percent(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = running(connection, make)
        rounds(connection, job, 1, 1e-3)
        plan_next(connection, job.id, ROUND_TRIALS)
        assert jobs.get(connection, job.id).state is JobState.RUNNING
        assert [step.kind for step in steps.of_job(connection, job.id)] == ["round"]


def test_a_job_ends_before_its_budget_when_another_minute_promises_less(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = running(connection, make)
        rounds(connection, job, 50, 1e-3)
        plan_next(connection, job.id, ROUND_TRIALS)
        ended = jobs.get(connection, job.id)
        assert (ended.state, ended.stop_reason) == (JobState.BUILDING, "converged")


def test_a_job_that_is_to_use_its_whole_budget_goes_on_all_the_same(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        network = make.network(connection, "net", ("conv", "pool"))
        job = jobs.create(
            connection,
            project_id="default",
            network_id=network.id,
            target_key=make.target(connection).key,
            budget_trials=10**6,
            budget_s=None,
            whole_budget=True,
        )
        jobs.transition(connection, job.id, JobState.RUNNING)
        rounds(connection, job, 50, 1e-3)
        plan_next(connection, job.id, ROUND_TRIALS)
        assert jobs.get(connection, job.id).state is JobState.RUNNING


def test_a_network_whose_workloads_other_jobs_tuned_for_long_needs_no_round(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = running(connection, make)
        for graph in ("conv", "pool"):
            records.store(
                connection,
                target_key=job.target_key,
                workload_key=make.workload(connection, graph).key,
                candidates=[make.candidate(f"{graph} {n}", make.full(1e-3 + n)) for n in range(4000)],
                project_key=ME,
            )
        for task in tasks.of_job(connection, job.id):
            tasks.know(connection, task.key, best_latency_s=1e-3, default_latency_s=1.0)
        plan_next(connection, job.id, ROUND_TRIALS)
        assert jobs.get(connection, job.id).stop_reason == "converged"


def test_a_task_counts_what_was_tried_before_its_job(make: Any) -> None:
    row = TaskRow(
        1, "job_x", 1, 1, "wkl_x", "00", "conv", 1e6, 1, 24, 2, 6.0, 1e-3, 2e-3, False, [[8, 2, None], [24, 6, 1e-3]]
    )
    assert [(best.trials, best.latency_s) for best in task_state(row, tried=124).curve] == [(124, 1e-3)]


def with_devices(connection: Connection, job: JobRow, count: int) -> None:
    """That stand for the job's target, each with a live worker on a host of its own."""
    for number in range(count):
        host = f"host-{number}"
        device = devices.register(connection, name=host, kind="local", host=host)
        devices.stand_for(connection, device.key, job.target_key)
        workers.register(connection, host=host, pid=number, version="1", schema="1", now=NOW)


def live_tasks(connection: Connection, job: JobRow) -> list[int]:
    return sorted(one["task_key"] for one in steps.live_rounds(connection, job.id))


def test_a_job_has_as_many_rounds_of_different_tasks_at_once_as_there_are_devices(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = running(connection, make, "conv", "pool", "dense")
        keys = sorted(task.key for task in tasks.of_job(connection, job.id))
        with_devices(connection, job, 2)
        plan_next(connection, job.id, ROUND_TRIALS, NOW)
        assert len(live_tasks(connection, job)) == 2 and set(live_tasks(connection, job)) < set(keys)
        plan_next(connection, job.id, ROUND_TRIALS, NOW)
        assert len(live_tasks(connection, job)) == 2
        with_devices(connection, job, 9)
        plan_next(connection, job.id, ROUND_TRIALS, NOW)
        assert live_tasks(connection, job) == keys


def test_devices_that_other_work_waits_for_are_left_to_it_but_every_job_has_a_round(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        one, other = running(connection, make, "conv", "pool", "dense"), running(connection, make, "softmax", "relu")
        with_devices(connection, one, 3)
        plan_next(connection, one.id, ROUND_TRIALS, NOW)
        plan_next(connection, other.id, ROUND_TRIALS, NOW)
        assert (len(live_tasks(connection, one)), len(live_tasks(connection, other))) == (3, 1)


def test_trials_under_way_count_and_the_build_waits_for_the_last_of_them(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = running(connection, make, "conv", "pool", "dense", budget_trials=40)
        with_devices(connection, job, 3)
        plan_next(connection, job.id, 32, NOW)
        assert len(steps.live_rounds(connection, job.id)) == 3
        while live := [step for step in steps.of_job(connection, job.id, live_only=True) if step.kind == "round"]:
            assert jobs.get(connection, job.id).state is JobState.RUNNING
            claim = steps.claim(connection, live[0].id, "me", 10.0)
            assert claim is not None
            steps.finish(connection, claim)
            given = claim.input["trials"]
            jobs.count(connection, job.id, trials=given, searched_s=1.0, untuned_latency_s=None, best_latency_s=None)
            plan_next(connection, job.id, 32, NOW)
        ended = jobs.get(connection, job.id)
        assert (ended.state, ended.trials, ended.stop_reason) == (JobState.BUILDING, 40, "trials used")
