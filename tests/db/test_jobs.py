"""Jobs move only as their table says, count what they use, and tell of it in numbered events."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Engine

from crosstune.db.engine import reading, retrying, transaction
from crosstune.db.errors import IllegalTransition, NotFound
from crosstune.db.repositories import events, jobs, tasks
from crosstune.db.repositories.jobs import JOB_TRANSITIONS, JobState

PATHS = {
    JobState.QUEUED: [],
    JobState.WAITING_FOR_DEVICE: [JobState.WAITING_FOR_DEVICE],
    JobState.RUNNING: [JobState.RUNNING],
    JobState.BUILDING: [JobState.RUNNING, JobState.BUILDING],
    JobState.CANCELLING: [JobState.CANCELLING],
    JobState.CANCELLED: [JobState.CANCELLING, JobState.CANCELLED],
    JobState.SUCCEEDED: [JobState.BUILDING, JobState.SUCCEEDED],
    JobState.FAILED: [JobState.FAILED],
}


def test_a_job_moves_exactly_as_the_transition_table_says(engine: Engine, make: Any) -> None:
    for before, path in PATHS.items():
        for after in JobState:
            with transaction(engine) as connection:
                job_id = make.job(connection).id
                for state in path:
                    jobs.transition(connection, job_id, state)
                if after == before or after in JOB_TRANSITIONS[before]:
                    assert jobs.transition(connection, job_id, after).state == after
                else:
                    with pytest.raises(IllegalTransition):
                        jobs.transition(connection, job_id, after)
                    assert jobs.get(connection, job_id).state == before


def test_every_state_can_be_left_and_every_end_can_be_resumed() -> None:
    assert set(JOB_TRANSITIONS) == set(JobState)
    assert all(JOB_TRANSITIONS.values())
    assert all(JOB_TRANSITIONS[state] == {JobState.QUEUED} for state in jobs.FINAL_STATES)


def test_a_job_has_a_task_per_workload_and_counts_what_its_rounds_use(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection, ("conv", "pool"), now=100)
        first, second = tasks.of_job(connection, job.id)
        assert (first.name, second.name, first.weight) == ("conv", "pool", 2)
        tasks.know(connection, first.key, default_latency_s=2.0)
        counted = None
        for latency_s in (1.0, 0.5):
            counted = tasks.count_round(
                connection, first.key, trials=16, searched_s=3.0, best_latency_s=latency_s, exhausted=False
            )
            jobs.count(connection, job.id, trials=16, searched_s=3.0, best_latency_s=latency_s)
        assert counted is not None
        assert (counted.trials, counted.rounds, counted.searched_s) == (32, 2, 6.0)
        assert (counted.best_latency_s, counted.default_latency_s) == (0.5, 2.0)
        assert counted.history == [[16, 3.0, 1.0], [32, 6.0, 0.5]]
        job = jobs.count(connection, job.id, untuned_latency_s=4.0)
        assert (job.trials, job.searched_s, job.best_latency_s, job.untuned_latency_s) == (32, 6.0, 0.5, 4.0)


def test_a_resumed_job_is_queued_again_with_more_budget(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection, now=100)
        with pytest.raises(IllegalTransition):
            jobs.resume(connection, job.id, add_trials=500)
        (task,) = tasks.of_job(connection, job.id)
        tasks.count_round(connection, task.key, trials=1, searched_s=1.0, best_latency_s=None, exhausted=True)
        ended = jobs.cancel(connection, job.id, now=101)
        assert (ended.state, ended.ended_at, ended.stop_reason) == ("cancelled", 101, "cancelled")
        resumed = jobs.resume(connection, job.id, add_trials=500, add_s=60, now=102)
        tasks.reopen(connection, job.id)
        assert (resumed.state, resumed.budget_trials, resumed.budget_s) == ("queued", 1500, None)
        assert (resumed.cancel_requested, resumed.ended_at, resumed.stop_reason) == (False, None, None)
        assert not tasks.get(connection, task.key).exhausted


def test_setting_the_same_state_again_writes_no_event(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection)
        jobs.transition(connection, job.id, JobState.RUNNING, now=101)
        again = jobs.transition(connection, job.id, JobState.RUNNING, message="round 2", now=102)
        assert (again.message, again.started_at) == ("round 2", 101)
        states = [event.data["state"] for event in events.after(connection, job.id, 0)]
    assert states == ["queued", "running"]


def test_jobs_are_listed_newest_first_by_page_and_filter(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        made = [make.job(connection).id for _ in range(5)]
        jobs.transition(connection, made[1], JobState.RUNNING)
        first = jobs.list_page(connection, "default", 2)
        second = jobs.list_page(connection, "default", 9, before=first[-1].id)
        assert [job.id for job in [*first, *second]] == made[::-1]
        assert [job.id for job in jobs.list_page(connection, "default", 9, state="running")] == [made[1]]
        assert jobs.list_page(connection, "other", 9) == []
        assert len(jobs.list_page(connection, "default", 9, target_key=make.target(connection).key)) == 5
        assert len(jobs.list_page(connection, "default", 9, network_id=first[0].network_id)) == 5
        assert len(jobs.live(connection)) == 5 and jobs.counts(connection) == {"queued": 4, "running": 1}
        with pytest.raises(NotFound):
            jobs.get(connection, made[0], project_id="other")


def test_the_events_of_a_job_have_no_gaps_under_many_writers(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        names = [make.job(connection).id for _ in range(2)]
    ended, gaps = threading.Event(), []

    class Undone(Exception):
        pass

    def write(index: int) -> None:
        for turn in range(12):
            if turn % 4 == 3:
                try:
                    with transaction(engine) as connection:
                        events.append(connection, names[turn % 2], "undone", {})
                        raise Undone
                except Undone:
                    continue
            retrying(engine, lambda c, turn=turn: events.append(c, names[turn % 2], "note", {"by": index}))

    def read() -> None:
        while not ended.is_set():
            for name in names:
                with reading(engine) as connection:
                    numbers = [one.sequence for one in events.after(connection, name, 0)]
                if numbers != list(range(1, len(numbers) + 1)):
                    gaps.append(numbers)

    writers = [threading.Thread(target=write, args=(index,)) for index in range(4)]
    reader = threading.Thread(target=read)
    reader.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    reader.join()
    assert gaps == []
    with reading(engine) as connection:
        written = events.after_each(connection, dict.fromkeys(names, 1))
    assert len(written) == 4 * 9 and {event.kind for event in written} == {"note"}


def test_old_events_are_forgotten_and_a_reader_can_tell(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection, now=100)
        for moment in (200, 300):
            events.append(connection, job.id, "note", {}, now=moment)
        assert events.prune(connection, before=250) == 2
        assert events.earliest(connection, job.id) == 3
        assert [event.sequence for event in events.after(connection, job.id, 0)] == [3]
        assert events.after_each(connection, {}) == []
        with pytest.raises(NotFound):
            events.append(connection, "job_unknown", "note", {})
