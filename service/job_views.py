"""Jobs as the API shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial

from sqlalchemy import Connection

from crosstune.db.repositories import devices, labels, tasks
from crosstune.db.repositories.jobs import JobRow
from crosstune.db.repositories.networks import NetworkState
from crosstune.db.repositories.tasks import TaskRow
from crosstune.service import availability, planning
from crosstune.service.lookups import utc, utc_or_none
from crosstune.service.schemas.common import Failure
from crosstune.service.schemas.jobs import JobBudget, JobDetail, JobOut, JobOutlook, JobState, JobTaskOut
from crosstune.service.services import Services

WAITING = frozenset({JobState.QUEUED, JobState.WAITING_FOR_DEVICE})
SEARCHING = WAITING | {JobState.RUNNING}
WORKING = SEARCHING | {JobState.BUILDING}


def outlines(services: Services, connection: Connection, rows: Sequence[JobRow]) -> list[JobOut]:
    """Jobs without their tasks, in a fixed number of queries."""
    return _outlines(services, connection, rows, tasks.rounds_of(connection, [row.id for row in rows]))


def _outlines(
    services: Services, connection: Connection, rows: Sequence[JobRow], rounds: Mapping[str, int]
) -> list[JobOut]:
    marks = labels.of_many(connection, rows[0].project_id, [row.id for row in rows]) if rows else {}
    is_live = cache(partial(availability.is_live, services, connection))
    return [
        _outline(row, marks.get(row.id, {}), rounds.get(row.id, 0), _waiting(connection, row, is_live)) for row in rows
    ]


def detail(services: Services, connection: Connection, row: JobRow) -> JobDetail:
    found = tasks.of_job(connection, row.id)
    (outline,) = _outlines(services, connection, [row], {row.id: sum(task.rounds for task in found)})
    outlook = _outlook(services, connection, row, found) if JobState(row.state) in SEARCHING else None
    return JobDetail(**dict(outline), outlook=outlook, tasks=[_task(task) for task in found])


def _outlook(services: Services, connection: Connection, row: JobRow, found: Sequence[TaskRow]) -> JobOutlook | None:
    if any(task.best_latency_s is None and task.rounds == 0 and not task.exhausted for task in found):
        return None  # there is none before every task has a latency: a new job's is not worth the queries
    expected = planning.job_outlook(connection, row, found, services.settings.round_trials)
    return None if expected is None else JobOutlook(**asdict(expected))


Waiting = tuple[str | None, float | None]
"""What for, and since when (UTC seconds)."""


def _waiting(connection: Connection, row: JobRow, is_live: Callable[[int], bool]) -> Waiting:
    """A job that runs waits too, once nobody is left who could go on with it. `is_live`: of a target by its key."""
    state = JobState(row.state)
    if state not in WORKING:
        return None, None
    if state in WAITING and row.network_state == NetworkState.IMPORTING:
        return f"network {row.network_id} is being imported", None
    if not is_live(row.target_key):
        since = max(devices.last_served(connection, row.target_key) or 0.0, row.created_at)
        return (state in WAITING and row.message) or availability.no_device_text(row.target_id), since
    return (row.message or None) if state in WAITING else None, None


def _outline(row: JobRow, marks: dict[str, str], rounds: int, waiting: Waiting) -> JobOut:
    state = JobState(row.state)
    failed = state is JobState.FAILED
    return JobOut(
        id=row.id,
        state=state,
        network=row.network_id,
        target=row.target_id,
        budget=JobBudget(trials=row.budget_trials, seconds=row.budget_s),
        whole_budget=row.whole_budget,
        cost_models=row.cost_models,
        seed=row.seed,
        priority=row.priority,
        labels=marks,
        trials=row.trials,
        seconds=row.searched_s,
        rounds=rounds,
        untuned_latency_s=row.untuned_latency_s,
        best_latency_s=row.best_latency_s,
        build=row.build_id,
        stop_reason=row.stop_reason,
        failure=Failure(code=row.stop_reason or "failed", detail=row.message) if failed else None,
        waiting_for=waiting[0],
        waiting_since=utc_or_none(waiting[1]),
        created_at=utc(row.created_at),
        started_at=utc_or_none(row.started_at),
        finished_at=utc_or_none(row.ended_at),
    )


def _task(row: TaskRow) -> JobTaskOut:
    return JobTaskOut(
        workload=row.workload_sha256,
        name=row.name,
        weight=row.weight,
        flops=row.flops,
        trials=row.trials,
        rounds=row.rounds,
        untuned_latency_s=row.default_latency_s,
        best_latency_s=row.best_latency_s,
        exhausted=row.exhausted,
    )
