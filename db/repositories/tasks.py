"""The workloads inside a job, with what the search has done for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, literal, select, update

from crosstune.db.errors import NotFound
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.tables import NetworkTask, Task, Workload


@dataclass(frozen=True, slots=True)
class TaskRow:
    """Latencies are seconds of one call; `history` is `[[trials, searched_s, best_latency_s], …]` after each round."""

    key: int
    job_id: str
    position: int
    workload_key: int
    workload_id: str
    workload_sha256: str
    name: str
    flops: float
    weight: int
    trials: int
    rounds: int
    searched_s: float
    best_latency_s: float | None
    default_latency_s: float | None
    exhausted: bool
    history: Any


def copy_from_network(connection: Connection, job_id: str, network_id: str) -> int:
    """Give the job one task per task of its network; returns how many."""
    return connection.execute(_COPY, {"job": job_id, "network": network_id}).rowcount


_COPY = (
    insert(Task)
    .from_select(
        [Task.job_id, Task.position, Task.workload_key, Task.weight, Task.history],
        select(
            bindparam("job", type_=Task.job_id.type),
            NetworkTask.position,
            NetworkTask.workload_key,
            NetworkTask.weight,
            literal([], Task.history.type),
        )
        .where(NetworkTask.network_id == bindparam("network"))
        .order_by(NetworkTask.position),
    )
    .execution_options(preserve_rowcount=True)
)


def exist(connection: Connection, job_id: str) -> bool:
    """Has the job got its tasks?"""
    return connection.execute(_ANY_OF_JOB, {"job": job_id}).first() is not None


_ANY_OF_JOB = select(Task.key).where(Task.job_id == bindparam("job")).limit(1)


def of_job(connection: Connection, job_id: str) -> list[TaskRow]:
    """The job's tasks in the network's order."""
    return [_task(row) for row in connection.execute(_OF_JOB, {"job": job_id})]


def rounds_of(connection: Connection, job_ids: Sequence[str]) -> dict[str, int]:
    """How many rounds each job has finished; jobs without tasks are left out."""
    query = select(Task.job_id, func.sum(Task.rounds)).where(Task.job_id.in_(job_ids)).group_by(Task.job_id)
    return {job_id: int(rounds) for job_id, rounds in connection.execute(query)}


def get(connection: Connection, task_key: int) -> TaskRow:
    row = connection.execute(_rows().where(Task.key == task_key)).one_or_none()
    if row is None:
        raise NotFound("task", str(task_key))
    return _task(row)


def count_round(
    connection: Connection,
    task_key: int,
    *,
    trials: int,
    searched_s: float,
    best_latency_s: float | None,
    exhausted: bool,
    default_latency_s: float | None = None,
) -> TaskRow:
    """Add a finished round. `best_latency_s` is the best known now; the default's latency stays unless it is given."""
    task = get(connection, task_key)
    values: dict[str, Any] = {
        "trials": Task.trials + trials,
        "rounds": Task.rounds + 1,
        "searched_s": Task.searched_s + searched_s,
        "best_latency_s": best_latency_s,
        "exhausted": exhausted,
        "history": [*task.history, [task.trials + trials, task.searched_s + searched_s, best_latency_s]],
    }
    if default_latency_s is not None:
        values["default_latency_s"] = default_latency_s
    connection.execute(update(Task).where(Task.key == task_key).values(**values))
    return get(connection, task_key)


def know(
    connection: Connection,
    task_key: int,
    *,
    best_latency_s: float | None = None,
    default_latency_s: float | None = None,
) -> None:
    """Set what is known of a task without a round of its own (records of other jobs)."""
    given = {"best_latency_s": best_latency_s, "default_latency_s": default_latency_s}
    values = {name: value for name, value in given.items() if value is not None}
    if values:
        connection.execute(update(Task).where(Task.key == task_key).values(**values))


def reopen(connection: Connection, job_id: str) -> None:
    """A resumed job may search all its tasks again."""
    connection.execute(update(Task).where(Task.job_id == job_id).values(exhausted=literal(False)))


def _task(row: Any) -> TaskRow:
    values = dict(row._mapping)
    values["workload_sha256"] = values["workload_sha256"].hex()
    return TaskRow(**values)


def _rows() -> AnySelect:
    return select(
        Task.key,
        Task.job_id,
        Task.position,
        Task.workload_key,
        Workload.id.label("workload_id"),
        Workload.sha256.label("workload_sha256"),
        Workload.name,
        Workload.flops,
        Task.weight,
        Task.trials,
        Task.rounds,
        Task.searched_s,
        Task.best_latency_s,
        Task.default_latency_s,
        Task.exhausted,
        Task.history,
    ).join(Workload, Workload.key == Task.workload_key)


_OF_JOB = _rows().where(Task.job_id == bindparam("job")).order_by(Task.position)
