"""The table of durable work: claim, beat, finish, and what happens to work whose worker died.

A claim's (owner, attempt) is its fencing token: only the latest claim of a step may beat, finish, fail or release it,
so a worker that was believed dead and comes back changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from crosstune.db.engine import moment, stamp
from crosstune.db.errors import NotFound, StaleClaim
from crosstune.db.ids import Prefix, has_prefix, new_id
from crosstune.db.repositories import builds, cost_models, jobs, networks
from crosstune.db.repositories.cost_models import CostModelStatus
from crosstune.db.repositories.step_values import Beat as Beat
from crosstune.db.repositories.step_values import Claim as Claim
from crosstune.db.repositories.step_values import Runnable as Runnable
from crosstune.db.repositories.step_values import StepKind as StepKind
from crosstune.db.repositories.step_values import StepRow as StepRow
from crosstune.db.repositories.step_values import StepState as StepState
from crosstune.db.repositories.step_values import Swept as Swept
from crosstune.db.repositories.step_values import with_cause
from crosstune.db.tables import CostModel, Job, Step

MAX_ATTEMPTS = 3
"""Claims that may end without an answer; the next one fails the step as poison."""
UNFINISHED = (StepState.QUEUED, StepState.RUNNING)
ANNOUNCE_S = 5.0
"""A runnable step is announced once in this time, not at each sweep; and again, since the hands of whoever took the
announcement may have been full."""


def enqueue(
    connection: Connection,
    *,
    kind: str,
    queue: str,
    project_id: str,
    input: dict[str, Any],
    job_id: str | None = None,
    target_key: int | None = None,
    workload_key: int | None = None,
    subject: str | None = None,
    priority: int = 0,
    not_before: float = 0.0,
    now: float | None = None,
) -> str:
    """Add a step and return its id. `target_key` and `workload_key` make a round exclusive; `subject` fails with it."""
    step_id = new_id(Prefix.STEP)
    row = {
        "id": step_id,
        "kind": kind,
        "queue": queue,
        "state": StepState.QUEUED,
        "project_id": project_id,
        "job_id": job_id,
        "target_key": target_key,
        "workload_key": workload_key,
        "subject": subject,
        "priority": priority,
        "not_before": not_before,
        "input": with_cause(input),
        "created_at": stamp(now),
    }
    connection.execute(_ENQUEUE, row)
    return step_id


_ENQUEUE = insert(Step)


def claim(
    connection: Connection,
    step_id: str,
    owner: str,
    lease_s: float,
    now: float | None = None,
    queues: Sequence[str] | None = None,
) -> Claim | None:
    """Take a runnable step for `owner`, or return None when it is held, finished, cancelled or not due yet, or is on
    none of `queues`, where these are given.

    A step is runnable when it is queued, or running with a lease that has passed. Each claim has a new `attempt`.
    A round waits while another round of the same workload and target is running, in whatever job. A step that was
    tried `MAX_ATTEMPTS` times without an answer is not handed out again: it fails as poison, and so does its job.
    """
    at = moment(connection, now)
    seen = connection.execute(
        select(Step.key, Step.kind, Step.attempt - Step.released).where(
            Step.id == step_id, _idle(at), Step.not_before <= at, ~_cancelled(), *_on(queues)
        )
    ).one_or_none()
    if seen is None:
        return None
    step_key, kind, tries = seen
    if tries >= MAX_ATTEMPTS:
        _poison(connection, step_id, now)
        return None
    if kind == StepKind.ROUND and connection.execute(select(_has_twin(step_id))).scalar_one():
        _announce_soon(connection, step_key)
        return None
    try:
        with connection.begin_nested():
            return _take(connection, step_key, owner, lease_s, at)
    except IntegrityError:  # a round of the same workload and target was claimed at the same moment
        _announce_soon(connection, step_key)
        return None


def _take(connection: Connection, step_key: int, owner: str, lease_s: float, at: ColumnElement[float]) -> Claim | None:
    # On PostgreSQL the inner SELECT passes over a row that another claim is just taking; SQLite has one writer.
    free = select(Step.key).where(Step.key == step_key, _idle(at)).with_for_update(skip_locked=True)
    row: Any = connection.execute(
        update(Step)
        .where(Step.key == free.scalar_subquery())
        .values(
            state=StepState.RUNNING,
            attempt=Step.attempt + 1,
            expired=Step.expired + case((Step.state == StepState.RUNNING, 1), else_=0),
            owner=owner,
            lease_until=at + lease_s,
            announced_until=at + lease_s,
            started_at=func.coalesce(Step.started_at, at),
        )
        .returning(
            Step.id,
            Step.key,
            Step.kind,
            Step.queue,
            Step.owner,
            Step.attempt,
            Step.lease_until,
            Step.project_id,
            Step.job_id,
            Step.target_key,
            Step.workload_key,
            Step.subject,
            Step.input,
            Step.attempt - Step.released,
        )
    ).one_or_none()
    return None if row is None else Claim(*row)


def beat(connection: Connection, owner: str, lease_s: float, claims: Sequence[Claim], now: float | None = None) -> Beat:
    """Renew the leases of all `claims` of this owner in one statement; what is missing in `held` is lost."""
    if not claims:
        return Beat(frozenset(), frozenset())
    at = moment(connection, now)
    wanted = [(held.step_key, held.attempt) for held in claims]
    cancelled = case((_cancelled(), 1), else_=0)
    rows = connection.execute(
        update(Step)
        .where(
            Step.owner == owner,
            Step.state == StepState.RUNNING,
            tuple_(Step.key, Step.attempt).in_(wanted),
        )
        .values(lease_until=at + lease_s, announced_until=at + lease_s)
        .returning(Step.id, cancelled)
    ).all()
    return Beat(frozenset(row[0] for row in rows), frozenset(row[0] for row in rows if row[1]))


def fence(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """What must hold of the row for this claim to change it: no later attempt has been given out."""
    return (Step.owner == claim.owner, Step.attempt == claim.attempt, Step.state == StepState.RUNNING)


def finish(
    connection: Connection,
    claim: Claim,
    state: StepState = StepState.DONE,
    now: float | None = None,
    lock_job: bool = True,
) -> None:
    """Flip the step to done (or cancelled), or raise StaleClaim.

    Call it first in the transaction that stores the results, so that they are stored exactly when the flip is.
    Takes the job's lock before the step's; without `lock_job` the caller does so once it comes to the job, so that the
    job's other rounds need not wait for all it stores before. A cancel that finds the lease passed may meet it the
    other way round: the database then ends one of the two, which `retrying` repeats.
    """
    if lock_job and claim.job_id is not None:
        jobs.lock(connection, claim.job_id)
    _flip(connection, claim, state=state, ended_at=moment(connection, now))


def fail(
    connection: Connection,
    claim: Claim,
    reason: str,
    retry_in_s: float | None = None,
    now: float | None = None,
) -> StepState:
    """The step ended without results: queue it again after `retry_in_s`, or end it for good when that is None.

    A step without tries left becomes poison. When the step ends for good, its job and its subject fail with `reason`.
    Returns the state that it has now; raises StaleClaim.
    """
    if claim.job_id is not None:
        jobs.lock(connection, claim.job_id)
    at = moment(connection, now)
    if retry_in_s is not None and claim.tries < MAX_ATTEMPTS:
        _flip(connection, claim, **_QUEUED, not_before=at + retry_in_s, last_exit=reason)
        return StepState.QUEUED
    _flip(connection, claim, state=StepState.FAILED, ended_at=at, last_exit=reason)
    _fail_dependents(connection, claim.step_id, "failed" if retry_in_s is None else "poison", reason, now)
    return StepState.FAILED


def release(connection: Connection, claim: Claim) -> None:
    """Give the step back untouched (graceful shutdown): queued again at once, and the try does not count."""
    _flip(connection, claim, **_QUEUED, released=Step.released + 1)


_QUEUED: dict[str, Any] = {"state": StepState.QUEUED, "owner": None, "lease_until": 0.0, "announced_until": 0.0}


def _flip(connection: Connection, claim: Claim, **values: Any) -> None:
    changed = connection.execute(update(Step).where(Step.key == claim.step_key, *fence(claim)).values(**values))
    if changed.rowcount != 1:
        raise StaleClaim(f"step {claim.step_id}", claim.owner, claim.attempt)


def note_exit(connection: Connection, claim: Claim, reason: str) -> None:
    """Remember why the work of a claim died, for the text of a later poison verdict."""
    _flip(connection, claim, last_exit=reason)


def runnable(
    connection: Connection,
    limit: int,
    queues: Sequence[str] | None = None,
    announce_s: float = ANNOUNCE_S,
    now: float | None = None,
) -> list[Runnable]:
    """Steps to announce now, most urgent first, each stamped so that it is not announced again for `announce_s`.

    Left out: what is leased, not due, already announced, of a cancelled job, or a round whose twin is running.
    Order: priority, then the project with the fewest running steps, then age.
    """
    at = moment(connection, now)
    other = aliased(Step)
    served = (
        select(func.count())
        .where(other.project_id == Step.project_id, other.state == StepState.RUNNING)
        .scalar_subquery()
    )
    query = (
        select(Step.key, Step.id, Step.kind, Step.queue, Step.job_id)
        .where(_idle(at), Step.not_before <= at, Step.announced_until < at, ~_cancelled(), ~_twin_of_round())
        .order_by(Step.priority.desc(), served, Step.key)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Step)
    )
    query = query.where(*_on(queues))
    rows = connection.execute(query).all()
    if rows:
        connection.execute(
            update(Step).where(Step.key.in_([row.key for row in rows])).values(announced_until=at + announce_s)
        )
    return [Runnable(row.id, row.kind, row.queue, row.job_id) for row in rows]


def live_rounds(connection: Connection, job_id: str) -> list[dict[str, Any]]:
    """Inputs of the job's rounds that wait or run."""
    query = select(Step.input).where(Step.job_id == job_id, Step.kind == StepKind.ROUND, Step.state.in_(UNFINISHED))
    return list(connection.execute(query).scalars())


def count_live(connection: Connection, queue: str, kind: StepKind | None = None) -> int:
    """How many steps of the queue, of one kind or of all, wait or run."""
    query = select(func.count()).where(Step.queue == queue, Step.state.in_(UNFINISHED))
    if kind is not None:
        query = query.where(Step.kind == kind)
    return int(connection.execute(query).scalar_one())


def sweep(connection: Connection, now: float | None = None) -> Swept:
    """End what nobody will end: cancelled jobs whose workers are gone, and steps that were tried too often.

    Harmless when many processes do it at once.
    """
    cancelling = connection.execute(select(Job.id).where(Job.state == jobs.JobState.CANCELLING)).scalars().all()
    ended = tuple(job_id for job_id in cancelling if jobs.settle_cancelled(connection, job_id, now))
    at = moment(connection, now)
    _end_cancelled_trainings(connection, at)
    orphaned = exists().where(Job.id == Step.job_id, Job.state.in_(jobs.FINAL_STATES))
    connection.execute(update(Step).where(_idle(at), orphaned).values(state=StepState.CANCELLED, ended_at=at))
    exhausted = connection.execute(
        select(Step.id).where(
            Step.state == StepState.RUNNING,
            Step.lease_until < at,
            Step.attempt - Step.released >= MAX_ATTEMPTS,
            ~_cancelled(),
        )
    ).scalars()
    poisoned = tuple(step_id for step_id in exhausted.all() if _poison(connection, step_id, now))
    return Swept(ended, poisoned)


def _end_cancelled_trainings(connection: Connection, at: ColumnElement[float]) -> None:
    """Those that nobody is at work on."""
    cancelling = exists().where(CostModel.id == Step.subject, CostModel.status == CostModelStatus.CANCELLING)
    ended = connection.execute(
        update(Step)
        .where(_idle(at), Step.kind == StepKind.RETRAIN, cancelling)
        .values(state=StepState.CANCELLED, ended_at=at)
        .returning(Step.subject)
    ).scalars()
    for model_id in ended.all():
        cost_models.end(connection, str(model_id), CostModelStatus.CANCELLED, "it was cancelled")


def _idle(at: ColumnElement[float]) -> ColumnElement[bool]:
    """Nobody is at work on it: queued, or running with a lease that has passed."""
    return or_(Step.state == StepState.QUEUED, and_(Step.state == StepState.RUNNING, Step.lease_until < at))


def _on(queues: Sequence[str] | None) -> list[ColumnElement[bool]]:
    return [] if queues is None else [Step.queue.in_(queues)]


def _no_longer_wanted() -> ColumnElement[bool]:
    return or_(Job.cancel_requested, Job.state.in_(jobs.FINAL_STATES))


def _cancelled() -> ColumnElement[bool]:
    """The step's job is to be cancelled or has ended already, or its subject, a cost model, is no longer wanted."""
    unwanted = exists().where(CostModel.id == Step.subject, CostModel.status != CostModelStatus.TRAINING)
    return or_(exists().where(Job.id == Step.job_id, _no_longer_wanted()), unwanted)


def _twin_of_round() -> ColumnElement[bool]:
    """Another round of the same workload and target is running."""
    other = aliased(Step)
    return exists().where(
        other.target_key == Step.target_key,
        other.workload_key == Step.workload_key,
        other.state == StepState.RUNNING,
        other.kind == StepKind.ROUND,
        other.key != Step.key,
        Step.kind == StepKind.ROUND,
    )


def _has_twin(step_id: str) -> ColumnElement[bool]:
    return select(Step.key).where(Step.id == step_id, _twin_of_round()).exists()


def _announce_soon(connection: Connection, step_key: int) -> None:
    """The next sweep after the twin's end announces it; `runnable` leaves it out until then."""
    connection.execute(
        update(Step).where(Step.key == step_key, Step.state == StepState.QUEUED).values(announced_until=0.0)
    )


def _poison(connection: Connection, step_id: str, now: float | None) -> bool:
    """Fail a step that was tried too often, with its job and subject; False when somebody else did."""
    job_id = connection.execute(select(Step.job_id).where(Step.id == step_id)).scalar_one()
    if job_id is not None:
        jobs.lock(connection, job_id)
    at = moment(connection, now)
    last_exit = connection.execute(
        update(Step)
        .where(Step.id == step_id, _idle(at), Step.attempt - Step.released >= MAX_ATTEMPTS)
        .values(state=StepState.FAILED, ended_at=at, last_exit=func.coalesce(Step.last_exit, "the worker died"))
        .returning(Step.last_exit)
    ).scalar_one_or_none()
    if last_exit is None:
        return False
    _fail_dependents(connection, step_id, "poison", f"tried {MAX_ATTEMPTS} times without an answer: {last_exit}", now)
    return True


def _fail_dependents(connection: Connection, step_id: str, stop_reason: str, text: str, now: float | None) -> None:
    job_id, kind, subject = connection.execute(
        select(Step.job_id, Step.kind, Step.subject).where(Step.id == step_id)
    ).one()
    if job_id is not None:
        jobs.end_failed(connection, job_id, stop_reason, f"step {step_id} ({kind}): {text}", now)
    if subject is not None and has_prefix(subject, Prefix.NETWORK):
        networks.refuse(connection, subject, "import-failed", text, {"step": step_id}, now)
    if subject is not None and has_prefix(subject, Prefix.BUILD):
        builds.fail(connection, subject, text, now)
    if subject is not None and has_prefix(subject, Prefix.COST_MODEL):
        cost_models.end(connection, subject, CostModelStatus.FAILED, text)


def get(connection: Connection, step_id: str) -> StepRow:
    row: Any = connection.execute(select(*_ROW).where(Step.id == step_id)).one_or_none()
    if row is None:
        raise NotFound("step", step_id)
    return StepRow(*row)


def exist_for(connection: Connection, job_id: str) -> bool:
    """Is there a step of the job that waits or runs?"""
    return connection.execute(_LIVE_OF_JOB, {"job": job_id}).first() is not None


_LIVE_OF_JOB = select(Step.key).where(Step.job_id == bindparam("job"), Step.state.in_(UNFINISHED)).limit(1)


def of_job(connection: Connection, job_id: str, live_only: bool = False) -> list[StepRow]:
    """A job's steps, oldest first; `live_only` leaves out those that have ended."""
    query = select(*_ROW).where(Step.job_id == job_id).order_by(Step.key)
    if live_only:
        query = query.where(Step.state.in_(UNFINISHED))
    rows: Any = connection.execute(query)
    return [StepRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Depth:
    """What waits on one queue: how many steps, and since when the oldest one (UTC seconds)."""

    queue: str
    waiting: int
    oldest: float


def depths(connection: Connection) -> list[Depth]:
    """Of the queues on which something waits."""
    query = select(Step.queue, func.count(), func.min(Step.created_at)).where(Step.state == StepState.QUEUED)
    return [Depth(*row) for row in connection.execute(query.group_by(Step.queue).order_by(Step.queue))]


def failures(connection: Connection) -> dict[str, int]:
    """Steps that failed for good, by kind."""
    query = select(Step.kind, func.count()).where(Step.state == StepState.FAILED).group_by(Step.kind)
    return {row[0]: row[1] for row in connection.execute(query)}


def repeats(connection: Connection) -> int:
    """How often a step was claimed again because its worker died or its child did."""
    again = func.sum(Step.attempt - Step.released - 1)
    return int(connection.execute(select(again).where(Step.attempt - Step.released > 1)).scalar_one() or 0)


def expiries(connection: Connection) -> int:
    """How often a step was claimed because the lease of its last claim had passed."""
    return int(connection.execute(select(func.sum(Step.expired))).scalar_one() or 0)


def counts(connection: Connection) -> dict[str, int]:
    """How many steps there are in each state."""
    rows = connection.execute(select(Step.state, func.count()).group_by(Step.state))
    return {row[0]: row[1] for row in rows}


_ROW = (
    Step.id,
    Step.key,
    Step.kind,
    Step.queue,
    Step.state,
    Step.project_id,
    Step.job_id,
    Step.attempt,
    Step.owner,
    Step.lease_until,
    Step.last_exit,
    Step.subject,
    Step.input,
    Step.created_at,
    Step.started_at,
    Step.ended_at,
)
