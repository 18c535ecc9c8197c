"""Jobs: the one table of their states, their counters, cancel and resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, exists, func, insert, literal_column, or_, select, update

from crosstune.db.engine import moment, stamp
from crosstune.db.errors import IllegalTransition, NotFound
from crosstune.db.ids import Prefix, new_id
from crosstune.db.repositories import events, tasks
from crosstune.db.repositories.networks import NetworkState
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.repositories.step_values import GENERAL_QUEUE, StepKind, StepState, with_cause
from crosstune.db.tables import Job, Label, Network, Step, Target


class JobState(StrEnum):
    QUEUED = "queued"
    WAITING_FOR_DEVICE = "waiting_for_device"
    RUNNING = "running"
    BUILDING = "building"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


WHOLE_BUDGET, COST_MODELS, WEBHOOK = "whole_budget", "cost_models", "webhook"
CONVERGED = "converged"
FINAL_STATES = frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED})
_STOPS = frozenset({JobState.CANCELLING, JobState.CANCELLED, JobState.FAILED})

JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: _STOPS | {JobState.WAITING_FOR_DEVICE, JobState.RUNNING, JobState.BUILDING},
    JobState.WAITING_FOR_DEVICE: _STOPS | {JobState.QUEUED, JobState.RUNNING, JobState.BUILDING},
    JobState.RUNNING: _STOPS | {JobState.WAITING_FOR_DEVICE, JobState.BUILDING},
    JobState.BUILDING: _STOPS | {JobState.WAITING_FOR_DEVICE, JobState.SUCCEEDED},
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.FAILED}),
    # A job that has ended goes on when it is resumed with more budget.
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
    JobState.SUCCEEDED: frozenset({JobState.QUEUED}),
    JobState.FAILED: frozenset({JobState.QUEUED}),
}
"""The only place that says which state may follow which; a state may always be set again to itself."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """Budgets are null when unlimited; latencies are seconds of one inference; times are UTC seconds."""

    id: str
    project_id: str
    network_id: str
    target_id: str
    target_key: int
    network_state: NetworkState
    state: JobState
    priority: int
    budget_trials: int | None
    budget_s: float | None
    trials: int
    searched_s: float
    deadline: float | None
    seed: int
    options: Any
    cancel_requested: bool
    stop_reason: str | None
    message: str
    untuned_latency_s: float | None
    best_latency_s: float | None
    build_id: str | None
    event_sequence: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    updated_at: float

    @property
    def ended(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def whole_budget(self) -> bool:
        """Go on until the budget is used, however little more is to be expected."""
        return bool((self.options or {}).get(WHOLE_BUDGET, False))

    @property
    def cost_models(self) -> list[str]:
        """Versions that ranked its candidates, in the order in which they came into use."""
        return list((self.options or {}).get(COST_MODELS, []))


def create(
    connection: Connection,
    *,
    project_id: str,
    network_id: str,
    target_key: int,
    budget_trials: int | None,
    budget_s: float | None,
    seed: int = 0,
    priority: int = 0,
    deadline: float | None = None,
    whole_budget: bool = False,
    webhook: str | None = None,
    now: float | None = None,
) -> JobRow:
    """A queued job with one task per workload of the network, and its first event. Its first step is the caller's."""
    created_at = stamp(now)
    row = {
        "id": new_id(Prefix.JOB),
        "project_id": project_id,
        "network_id": network_id,
        "target_key": target_key,
        "state": JobState.QUEUED,
        "priority": priority,
        "budget_trials": budget_trials,
        "budget_s": budget_s,
        "deadline": deadline,
        "seed": seed,
        "options": {WHOLE_BUDGET: whole_budget, **({} if webhook is None else {WEBHOOK: webhook})},
        "event_sequence": 1,
        "created_at": created_at,
        "updated_at": created_at,
    }
    job = _job(connection.execute(_CREATE, row).one())
    tasks.copy_from_network(connection, job.id, network_id)
    events.write(connection, job.id, 1, project_id, "state", {"state": JobState.QUEUED, "before": None}, now)
    return job


def get(connection: Connection, job_id: str, project_id: str | None = None) -> JobRow:
    """The job, or NotFound; with `project_id` also when it belongs to another project."""
    job = _one(connection, _GET, job_id)
    if project_id not in (None, job.project_id):
        raise NotFound("job", job_id)
    return job


def list_page(
    connection: Connection,
    project_id: str,
    limit: int,
    before: str | None = None,
    state: str | None = None,
    network_id: str | None = None,
    target_key: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> list[JobRow]:
    """Newest first; `before` is the id of the last job of the page before; jobs must have all `labels`."""
    query = _rows().where(Job.project_id == project_id).order_by(Job.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Job.id < before)
    if state is not None:
        query = query.where(Job.state == state)
    if network_id is not None:
        query = query.where(Job.network_id == network_id)
    if target_key is not None:
        query = query.where(Job.target_key == target_key)
    for key, value in (labels or {}).items():
        labelled = (Label.project_id == project_id, Label.resource == Job.id, Label.key == key, Label.value == value)
        query = query.where(exists().where(*labelled))
    return [_job(row) for row in connection.execute(query)]


def lock(connection: Connection, job_id: str) -> JobRow:
    """The job, its row locked until the transaction ends (on SQLite the transaction itself is the lock)."""
    return _one(connection, _LOCK, job_id)


def transition(
    connection: Connection,
    job_id: str,
    to: JobState,
    *,
    stop_reason: str | None = None,
    message: str | None = None,
    now: float | None = None,
) -> JobRow:
    """Move the job to `to` and write a `state` event; IllegalTransition unless JOB_TRANSITIONS has it.

    A job that is in that state already stays as it is, without an event, except for a new `message`.
    """
    job = lock(connection, job_id)
    if to == job.state:
        if message is not None and message != job.message:
            return _set(connection, job_id, now, message=message)
        return job
    if to not in JOB_TRANSITIONS[job.state]:
        raise IllegalTransition(job_id, job.state, to)
    values: dict[str, Any] = {"state": to, "message": job.message if message is None else message}
    if stop_reason is not None:
        values["stop_reason"] = stop_reason
    if to in FINAL_STATES:
        values["ended_at"] = stamp(now)
    if to == JobState.RUNNING and job.started_at is None:
        values["started_at"] = stamp(now)
    moved = _set(connection, job_id, now, event_sequence=Job.event_sequence + 1, **values)
    data = {"state": to, "before": job.state, "stop_reason": values.get("stop_reason"), "message": values["message"]}
    events.write(connection, job_id, moved.event_sequence, job.project_id, "state", data, now)
    if to in FINAL_STATES:
        _notify(connection, job, now)
    return moved


def _notify(connection: Connection, job: JobRow, now: float | None) -> None:
    """A step that tells the job's webhook of its end. It is not one of the job's: those end with it."""
    url = (job.options or {}).get(WEBHOOK)
    if url is not None:
        connection.execute(
            insert(Step).values(
                id=new_id(Prefix.STEP),
                kind=StepKind.NOTIFY,
                queue=GENERAL_QUEUE,
                state=StepState.QUEUED,
                project_id=job.project_id,
                subject=job.id,
                not_before=0.0,
                input=with_cause({"job_id": job.id, "url": url}),
                created_at=stamp(now),
            )
        )


def count(
    connection: Connection,
    job_id: str,
    *,
    trials: int = 0,
    searched_s: float = 0.0,
    untuned_latency_s: float | None = None,
    best_latency_s: float | None = None,
    now: float | None = None,
) -> JobRow:
    """Add what a step used to the job's counters and set the estimates that are given."""
    values: dict[str, Any] = {"trials": Job.trials + trials, "searched_s": Job.searched_s + searched_s}
    if untuned_latency_s is not None:
        values["untuned_latency_s"] = untuned_latency_s
    if best_latency_s is not None:
        values["best_latency_s"] = best_latency_s
    return _set(connection, job_id, now, **values)


def set_build(connection: Connection, job_id: str, build_id: str, now: float | None = None) -> None:
    _set(connection, job_id, now, build_id=build_id)


def set_stop_reason(connection: Connection, job_id: str, stop_reason: str, now: float | None = None) -> None:
    """Why the search ended (budget, converged, …), before the job itself ends."""
    _set(connection, job_id, now, stop_reason=stop_reason)


def cancel(connection: Connection, job_id: str, now: float | None = None) -> JobRow:
    """Ask the job to stop: cancelled at once when nothing is running, else cancelling until that has stopped.

    A job that has ended, or is cancelling already, stays as it is.
    """
    job = lock(connection, job_id)
    if job.ended or job.cancel_requested:
        return job
    _set(connection, job_id, now, cancel_requested=True, stop_reason="cancelled")
    transition(connection, job_id, JobState.CANCELLING, now=now)
    settle_cancelled(connection, job_id, now)
    return get(connection, job_id)


def settle_cancelled(connection: Connection, job_id: str, now: float | None = None) -> bool:
    """End a cancelling job when no worker is at work on it; True when it ended. Called after each of its steps."""
    job = lock(connection, job_id)
    if job.state != JobState.CANCELLING:
        return False
    _cancel_idle_steps(connection, job_id, now)
    running = select(Step.id).where(Step.job_id == job_id, Step.state == StepState.RUNNING).limit(1)
    if connection.execute(running).first() is not None:
        return False
    transition(connection, job_id, JobState.CANCELLED, now=now)
    return True


def end_failed(connection: Connection, job_id: str, stop_reason: str, message: str, now: float | None = None) -> bool:
    """Fail the job and cancel what it has queued; False when it had ended already."""
    if lock(connection, job_id).ended:
        return False
    transition(connection, job_id, JobState.FAILED, stop_reason=stop_reason, message=message, now=now)
    _cancel_idle_steps(connection, job_id, now)
    return True


def resume(
    connection: Connection,
    job_id: str,
    *,
    add_trials: int | None = None,
    add_s: float | None = None,
    now: float | None = None,
) -> JobRow:
    """Queue an ended job again with more budget; IllegalTransition while it has not ended.

    What is null stays as it is, and an unlimited budget stays unlimited. A job that had succeeded is to use all of its
    budget from now on: whoever resumes it wants more than it would do by itself. The next step is the caller's to add.
    """
    job = lock(connection, job_id)
    if not job.ended:
        raise IllegalTransition(job_id, job.state, JobState.QUEUED)
    values: dict[str, Any] = {"cancel_requested": False, "stop_reason": None, "ended_at": None, "deadline": None}
    if job.state == JobState.SUCCEEDED:
        values["options"] = {**(job.options or {}), WHOLE_BUDGET: True}
    if add_trials is not None and job.budget_trials is not None:
        values["budget_trials"] = job.budget_trials + add_trials
    if add_s is not None and job.budget_s is not None:
        values["budget_s"] = job.budget_s + add_s
    _set(connection, job_id, now, **values)
    return transition(connection, job_id, JobState.QUEUED, message="", now=now)


def use_model(connection: Connection, job_id: str, version: str) -> None:
    """Note that a round of the job asked this version of the cost model; the job's row is locked from here on."""
    job = lock(connection, job_id)
    if version not in job.cost_models:
        options = {**(job.options or {}), COST_MODELS: [*job.cost_models, version]}
        connection.execute(update(Job).where(Job.id == job_id).values(options=options))


def live(connection: Connection) -> list[JobRow]:
    """All jobs of all projects that have not ended, oldest first."""
    query = _rows().where(Job.state.not_in(FINAL_STATES)).order_by(Job.id)
    return [_job(row) for row in connection.execute(query)]


def trials_per_s(connection: Connection, target_key: int) -> float | None:
    """How fast all jobs of the target went so far, together; None when none has measured anything."""
    trials, searched_s = connection.execute(
        select(func.sum(Job.trials), func.sum(Job.searched_s)).where(Job.target_key == target_key)
    ).one()
    return float(trials) / float(searched_s) if trials and searched_s else None


def all_trials(connection: Connection) -> int:
    """Candidates that all jobs measured."""
    return int(connection.execute(select(func.sum(Job.trials))).scalar_one() or 0)


def counts(connection: Connection) -> dict[str, int]:
    """How many jobs there are in each state."""
    rows = connection.execute(select(Job.state, func.count()).group_by(Job.state))
    return {row[0]: row[1] for row in rows}


def _cancel_idle_steps(connection: Connection, job_id: str, now: float | None) -> None:
    at = moment(connection, now)
    idle = or_(Step.state == StepState.QUEUED, and_(Step.state == StepState.RUNNING, Step.lease_until < at))
    connection.execute(update(Step).where(Step.job_id == job_id, idle).values(state=StepState.CANCELLED, ended_at=at))


def _set(connection: Connection, job_id: str, now: float | None, **values: Any) -> JobRow:
    change = update(Job).where(Job.id == job_id).values(updated_at=stamp(now), **values).returning(*_COLUMNS)
    row = connection.execute(change).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    return _job(row)


def _one(connection: Connection, query: AnySelect, job_id: str) -> JobRow:
    row = connection.execute(query, {"job": job_id}).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    return _job(row)


def _job(row: Row[Any]) -> JobRow:
    values = dict(row._mapping)
    values["state"] = JobState(values["state"])
    values["network_state"] = NetworkState(values["network_state"])
    return JobRow(**values)


def _of_job(column: Any, key: Any, own: str) -> Any:
    """A column of another table by subquery, so that changes can return it too. The job's own column is named as text:
    RETURNING has no table that a subquery could be correlated with."""
    return select(column).where(key == literal_column(f"jobs.{own}", key.type)).scalar_subquery()


_COLUMNS = (
    Job.id,
    Job.project_id,
    Job.network_id,
    _of_job(Target.id, Target.key, "target_key").label("target_id"),
    Job.target_key,
    _of_job(Network.state, Network.id, "network_id").label("network_state"),
    Job.state,
    Job.priority,
    Job.budget_trials,
    Job.budget_s,
    Job.trials,
    Job.searched_s,
    Job.deadline,
    Job.seed,
    Job.options,
    Job.cancel_requested,
    Job.stop_reason,
    Job.message,
    Job.untuned_latency_s,
    Job.best_latency_s,
    Job.build_id,
    Job.event_sequence,
    Job.created_at,
    Job.started_at,
    Job.ended_at,
    Job.updated_at,
)


# Made once: building a statement of so many columns anew takes longer than the database does.
_CREATE = insert(Job).returning(*_COLUMNS)
_GET = select(*_COLUMNS).where(Job.id == bindparam("job"))
_LOCK = _GET.with_for_update(key_share=True, of=Job)


def _rows() -> AnySelect:
    return select(*_COLUMNS)
