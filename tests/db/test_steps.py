"""Claim, beat, finish and what becomes of work whose worker died, with a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from crosstune.db.engine import retrying, transaction
from crosstune.db.errors import StaleClaim
from crosstune.db.repositories import builds, events, jobs, networks, steps

LEASE_S = 15.0


def claim(engine: Engine, step_id: str, owner: str, now: float) -> steps.Claim:
    with transaction(engine) as connection:
        claimed = steps.claim(connection, step_id, owner, LEASE_S, now)
    assert claimed is not None
    return claimed


def test_a_step_is_claimed_by_one_worker_and_finished_once(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
    mine = claim(engine, step_id, "a", now=100)
    assert (mine.attempt, mine.tries, mine.lease_until, mine.input) == (1, 1, 115, {"trials": 16})
    with transaction(engine) as connection:
        assert steps.claim(connection, step_id, "b", LEASE_S, 110) is None
        steps.finish(connection, mine, now=111)
    with transaction(engine) as connection:
        assert steps.claim(connection, step_id, "b", LEASE_S, 1000) is None
        done = steps.get(connection, step_id)
    assert (done.state, done.started_at, done.ended_at) == ("done", 100, 111)


def test_a_round_whose_worker_was_killed_is_finished_once_by_another(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection)
        step_id = make.round(connection, job)
    late = claim(engine, step_id, "a", now=100)
    other = claim(engine, step_id, "b", now=116)
    with pytest.raises(StaleClaim), transaction(engine) as connection:
        events.append(connection, job.id, "result", {"of": "a"})
        steps.finish(connection, late, now=117)
    with transaction(engine) as connection:
        steps.finish(connection, other, now=118)
        events.append(connection, job.id, "result", {"of": "b"})
        written = [event.data["of"] for event in events.after(connection, job.id, 0) if event.kind == "result"]
    assert written == ["b"]


def test_without_fencing_a_late_worker_would_store_its_results_twice(
    engine: Engine, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "fence", lambda claim: ())
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
    late, other = claim(engine, step_id, "a", now=100), claim(engine, step_id, "b", now=116)
    finished = []
    for one in (late, other):
        with transaction(engine) as connection:
            steps.finish(connection, one)
            finished.append(one)
    assert finished == [late, other]


def test_a_beat_renews_all_leases_of_a_worker_and_names_what_is_lost(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection, ("conv", "pool", "relu"))
        names = [make.round(connection, job, graph) for graph in ("conv", "pool", "relu")]
    claims = [claim(engine, name, "a", now=100) for name in names]
    with transaction(engine) as connection:
        steps.finish(connection, claims[1], now=101)
        beat = steps.beat(connection, "a", LEASE_S, claims, now=110)
        assert steps.get(connection, names[0]).lease_until == 125
        assert steps.beat(connection, "b", LEASE_S, claims, now=120).held == frozenset()
    assert beat.held == {names[0], names[2]} and beat.cancelled == frozenset()
    with transaction(engine) as connection:
        jobs.cancel(connection, job.id, now=111)
        assert steps.beat(connection, "a", LEASE_S, claims, now=112).cancelled == {names[0], names[2]}
        assert steps.beat(connection, "a", LEASE_S, [], now=112).held == frozenset()


def test_an_attempt_that_was_overtaken_cannot_beat_or_release(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
    late = claim(engine, step_id, "a", now=100)
    claim(engine, step_id, "a", now=200)
    with transaction(engine) as connection:
        assert steps.beat(connection, "a", LEASE_S, [late], now=201).held == frozenset()
    for act in (steps.release, lambda *of: steps.fail(*of, "crash", 1.0), lambda *of: steps.note_exit(*of, "crash")):
        with pytest.raises(StaleClaim), transaction(engine) as connection:
            act(connection, late)


def test_a_step_that_was_given_back_can_be_claimed_at_once_and_was_not_tried(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
    for attempt in range(1, 3 * steps.MAX_ATTEMPTS):
        mine = claim(engine, step_id, "a", now=100)
        assert (mine.attempt, mine.tries) == (attempt, 1)
        with transaction(engine) as connection:
            steps.release(connection, mine)


def test_a_poison_step_fails_after_three_tries_with_its_job_and_the_last_exit(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection, ("conv", "pool"))
        step_id, sibling = make.round(connection, job, "conv"), make.round(connection, job, "pool")
    for turn in range(steps.MAX_ATTEMPTS):
        mine = claim(engine, step_id, "a", now=100 + 100 * turn)
        with transaction(engine) as connection:
            steps.note_exit(connection, mine, "signal 9")
    with transaction(engine) as connection:
        assert steps.claim(connection, step_id, "b", LEASE_S, now=1000) is None
    with transaction(engine) as connection:
        failed, job = steps.get(connection, step_id), jobs.get(connection, job.id)
        assert steps.get(connection, sibling).state == "cancelled"
    assert (failed.state, failed.attempt, failed.last_exit) == ("failed", 3, "signal 9")
    assert (job.state, job.stop_reason) == ("failed", "poison") and "signal 9" in job.message


def test_the_sweep_ends_poison_that_nobody_claims(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
    for turn in range(steps.MAX_ATTEMPTS):
        claim(engine, step_id, "a", now=100 * turn)
    with transaction(engine) as connection:
        assert steps.sweep(connection, now=210).poisoned_steps == ()
        assert steps.sweep(connection, now=216).poisoned_steps == (step_id,)
        assert steps.sweep(connection, now=217).poisoned_steps == ()


def test_a_failed_step_is_tried_again_later_and_then_poison(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection)
        step_id = make.round(connection, job)
    for turn in range(steps.MAX_ATTEMPTS):
        mine = claim(engine, step_id, "a", now=100 * turn)
        with transaction(engine) as connection:
            state = steps.fail(connection, mine, "disk full", retry_in_s=50, now=100 * turn)
            assert steps.claim(connection, step_id, "a", LEASE_S, now=100 * turn + 49) is None
    assert state == "failed"
    with transaction(engine) as connection:
        assert jobs.get(connection, job.id).stop_reason == "poison"


def test_what_a_step_works_on_fails_with_it(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        network, _ = networks.submit(
            connection,
            project_id="default",
            name="new",
            content_sha256=make.sha("new"),
            shapes={},
            size_bytes=1,
            artifact_id=None,
        )
        build = builds.create(
            connection,
            project_id="default",
            network_id=network.id,
            target_key=make.target(connection).key,
            schedules=[],
        )
        subjects = {"import": network.id, "build_network": build.id}
        names = [
            steps.enqueue(connection, kind=kind, queue="q", project_id="default", input={}, subject=subject)
            for kind, subject in subjects.items()
        ]
        for name in names:
            mine = steps.claim(connection, name, "a", LEASE_S, 100)
            assert mine is not None
            steps.fail(connection, mine, "the child died")
        refused, failed = networks.get(connection, network.id), builds.get(connection, build.id)
    assert refused.state == "refused" and refused.refusal["detail"] == "the child died"
    assert failed.state == "failed" and failed.refused == "the child died"


def test_one_round_of_a_workload_on_a_target_runs_in_the_whole_system(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        first = make.round(connection, make.job(connection))
        second = make.round(connection, make.job(connection))
        assert {one.step_id for one in steps.runnable(connection, 10, now=100)} == {first, second}
    running = claim(engine, first, "a", now=101)
    with transaction(engine) as connection:
        assert steps.claim(connection, second, "b", LEASE_S, now=102) is None
        assert steps.runnable(connection, 10, now=103) == []
        steps.finish(connection, running, now=104)
        assert [one.step_id for one in steps.runnable(connection, 10, now=105)] == [second]
    assert claim(engine, second, "b", now=106).attempt == 1


def test_runnable_steps_are_announced_once_in_order_of_priority(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        graphs = ("conv", "pool", "relu", "gemm")
        job = make.job(connection, graphs)
        late = make.round(connection, job, "gemm", not_before=500.0)
        plain, urgent = make.round(connection, job, "conv"), make.round(connection, job, "pool", priority=5)
        other = make.round(connection, job, "relu")
        assert [one.step_id for one in steps.runnable(connection, 2, now=100)] == [urgent, plain]
        assert [one.step_id for one in steps.runnable(connection, 9, now=101)] == [other]
        assert steps.runnable(connection, 9, queues=["elsewhere"], now=131) == []
        assert [one.step_id for one in steps.runnable(connection, 9, now=132)] == [urgent, plain, other]
        assert [one.step_id for one in steps.runnable(connection, 9, now=501)][0:1] == [urgent]
        assert late in {one.step_id for one in steps.runnable(connection, 9, now=600)}


def test_a_project_with_less_running_work_is_served_first(engine: Engine, make: Any) -> None:
    from crosstune.db.repositories import projects

    with transaction(engine) as connection:
        other = projects.create(connection, "other").id
        names = [
            steps.enqueue(connection, kind="explore", queue="q", project_id=project, input={})
            for project in ("default", "default", other)
        ]
        assert steps.claim(connection, names[0], "a", LEASE_S, 100) is not None
        assert [one.step_id for one in steps.runnable(connection, 9, now=101)] == [names[2], names[1]]


def test_an_announced_step_is_announced_again_when_its_lease_has_passed(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
    claim(engine, step_id, "a", now=100)
    with transaction(engine) as connection:
        assert steps.runnable(connection, 9, now=114) == []
        assert [one.step_id for one in steps.runnable(connection, 9, now=116)] == [step_id]


def test_cancelling_ends_queued_steps_at_once_and_a_running_one_with_its_worker(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection, ("conv", "pool"))
        running, queued = make.round(connection, job, "conv"), make.round(connection, job, "pool")
    mine = claim(engine, running, "a", now=100)
    with transaction(engine) as connection:
        assert jobs.cancel(connection, job.id, now=101).state == "cancelling"
        assert jobs.cancel(connection, job.id, now=102).state == "cancelling"
        assert steps.get(connection, queued).state == "cancelled"
        assert steps.claim(connection, queued, "b", LEASE_S, 103) is None
        steps.finish(connection, mine, steps.StepState.CANCELLED, now=104)
        assert jobs.settle_cancelled(connection, job.id, now=104)
        assert jobs.get(connection, job.id).state == "cancelled"


def test_a_cancelled_job_whose_worker_died_is_ended_by_the_sweep(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection)
        step_id = make.round(connection, job)
    claim(engine, step_id, "a", now=100)
    with transaction(engine) as connection:
        jobs.cancel(connection, job.id, now=101)
        assert steps.sweep(connection, now=110).cancelled_jobs == ()
        assert steps.claim(connection, step_id, "b", LEASE_S, 120) is None
        assert steps.sweep(connection, now=120).cancelled_jobs == (job.id,)
        assert steps.get(connection, step_id).state == "cancelled"


def test_a_running_step_of_a_job_that_failed_is_told_and_swept(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection, ("conv", "pool"))
        names = [make.round(connection, job, graph) for graph in ("conv", "pool")]
    first, second = (claim(engine, name, "a", now=100) for name in names)
    with transaction(engine) as connection:
        steps.fail(connection, first, "impossible", now=101)
        assert steps.beat(connection, "a", LEASE_S, [second], now=102).cancelled == {second.step_id}
        steps.sweep(connection, now=200)
        assert steps.get(connection, second.step_id).state == "cancelled"


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    results: list[Any] = [None] * count
    gate = threading.Barrier(count)

    def run(index: int) -> None:
        gate.wait()
        results[index] = work(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_of_many_workers_that_claim_at_the_same_moment_one_wins(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
    claims = in_threads(6, lambda index: retrying(engine, lambda c: steps.claim(c, step_id, f"w{index}", LEASE_S)))
    assert len([one for one in claims if one is not None]) == 1


def test_of_two_rounds_of_a_workload_claimed_at_the_same_moment_one_wins(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        names = [make.round(connection, make.job(connection)) for _ in range(4)]
    claims = in_threads(4, lambda index: retrying(engine, lambda c: steps.claim(c, names[index], "w", LEASE_S)))
    assert len([one for one in claims if one is not None]) == 1


def test_leases_work_with_the_databases_own_clock(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
    with transaction(engine) as connection:
        assert [one.step_id for one in steps.runnable(connection, 9)] == [step_id]
        short = steps.claim(connection, step_id, "a", lease_s=-1.0)
        assert short is not None and steps.claim(connection, step_id, "b", lease_s=60.0) is not None
        assert steps.claim(connection, step_id, "c", lease_s=60.0) is None
        assert steps.expiries(connection) == 1
        assert steps.counts(connection) == {"running": 1}
