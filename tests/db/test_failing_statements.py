"""A process may die between any two statements: nothing is ever half stored, and the step can be done afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select

from crosstune.db.engine import reading, transaction
from crosstune.db.repositories import events, jobs, records, schedules, steps, tasks
from crosstune.db.tables import Base

LEASE_S = 15.0
MOST_STATEMENTS = 100


class Died(Exception):
    pass


@contextmanager
def dying_at(engine: Engine, statement: int) -> Iterator[None]:
    """Raise before the n-th statement (from 1) of the block, or at its COMMIT when it has just n - 1."""
    count = 0

    def step(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == statement:
            raise Died(statement)

    event.listen(engine, "before_cursor_execute", step)
    event.listen(engine, "commit", step)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", step)
        event.remove(engine, "commit", step)


def everything(engine: Engine) -> dict[str, list[Any]]:
    with reading(engine) as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)))) for table in Base.metadata.sorted_tables
        }


def die_everywhere(engine: Engine, act: Callable[[Connection], Any]) -> int:
    """Do `act` with a death at every statement in turn, then without; returns how many deaths there were."""
    before = everything(engine)
    for statement in range(1, MOST_STATEMENTS):
        try:
            with dying_at(engine, statement), transaction(engine) as connection:
                act(connection)
        except Died:
            assert everything(engine) == before, f"something was stored, though statement {statement} failed"
        else:
            return statement - 1
    raise AssertionError("more statements than expected")


def finish_round(make: Any, claim: steps.Claim) -> Callable[[Connection], None]:
    """Everything that the end of a round stores, in its one transaction."""

    def act(connection: Connection) -> None:
        assert claim.job_id is not None and claim.target_key is not None and claim.workload_key is not None
        steps.finish(connection, claim, now=105)
        records.store(
            connection,
            target_key=claim.target_key,
            workload_key=claim.workload_key,
            project_key=1,
            candidates=[
                make.candidate("one", make.full(0.5, step_key=claim.step_key), features=b"f", feature_layout=1),
                make.candidate("two", make.failure("compile", step_key=claim.step_key)),
            ],
        )
        (task,) = tasks.of_job(connection, claim.job_id)
        tasks.count_round(connection, task.key, trials=2, searched_s=5.0, best_latency_s=0.5, exhausted=False)
        job = jobs.count(connection, claim.job_id, trials=2, searched_s=5.0, best_latency_s=1.0)
        events.append(connection, claim.job_id, "round", {"trials": 2})
        make.round(connection, job)

    return act


def test_a_claim_that_dies_at_any_statement_leaves_the_step_to_be_claimed(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
    claims: list[steps.Claim | None] = []
    deaths = die_everywhere(engine, lambda c: claims.append(steps.claim(c, step_id, "a", LEASE_S, 100)))
    assert deaths >= 3
    claim = claims[-1]
    assert claim is not None and claim.attempt == 1
    with transaction(engine) as connection:
        finish_round(make, claim)(connection)


def test_a_finish_that_dies_at_any_statement_stores_nothing_and_can_be_repeated(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection)
        step_id = make.round(connection, job)
        claim = steps.claim(connection, step_id, "a", LEASE_S, 100)
    assert claim is not None
    assert die_everywhere(engine, finish_round(make, claim)) >= 10
    with transaction(engine) as connection:
        finished, queued = steps.of_job(connection, job.id)
        found = schedules.known(connection, job.target_key, make.workload(connection).key, 1)
        kinds = [one.kind for one in events.after(connection, job.id, 0)]
    assert (finished.state, queued.state) == ("done", "queued")
    assert [(one.latency_s, one.invalidity) for one in found] == [(0.5, None), (None, "compile")]
    assert kinds == ["state", "round"]


def test_a_finish_that_died_is_done_by_the_next_worker_after_the_lease(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        step_id = make.round(connection, make.job(connection))
        first = steps.claim(connection, step_id, "a", LEASE_S, 100)
    assert first is not None
    with pytest.raises(Died), dying_at(engine, 6), transaction(engine) as connection:
        finish_round(make, first)(connection)
    with transaction(engine) as connection:
        second = steps.claim(connection, step_id, "b", LEASE_S, 116)
        assert second is not None and second.attempt == 2
        finish_round(make, second)(connection)


def test_poison_that_dies_at_any_statement_fails_neither_step_nor_job_alone(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection)
        step_id = make.round(connection, job)
        for turn in range(steps.MAX_ATTEMPTS):
            assert steps.claim(connection, step_id, "a", LEASE_S, 100 * turn) is not None
    assert die_everywhere(engine, lambda c: steps.claim(c, step_id, "b", LEASE_S, 1000)) >= 4
    with transaction(engine) as connection:
        assert steps.get(connection, step_id).state == "failed"
        assert jobs.get(connection, job.id).state == "failed"


def test_a_cancel_that_dies_at_any_statement_changes_nothing(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection)
        make.round(connection, job)
    assert die_everywhere(engine, lambda c: jobs.cancel(c, job.id, 100)) >= 5
    with transaction(engine) as connection:
        assert jobs.get(connection, job.id).state == "cancelled"
