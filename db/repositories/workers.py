"""Processes that run steps: who is there, of which version, and since when unheard of."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from crosstune.db.engine import moment, stamp
from crosstune.db.errors import NotFound
from crosstune.db.ids import Prefix, new_id
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.tables import Worker


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """`last_seen` is the heartbeat, UTC seconds; `schema` the database revision the worker was written for."""

    key: int
    id: str
    host: str
    pid: int
    version: str
    schema: str
    draining: bool
    started_at: float
    last_seen: float
    stopped_at: float | None


def register(
    connection: Connection, *, host: str, pid: int, version: str, schema: str, now: float | None = None
) -> WorkerRow:
    worker_id = new_id(Prefix.WORKER)
    at = stamp(now)
    connection.execute(
        insert(Worker).values(
            id=worker_id, host=host, pid=pid, version=version, schema=schema, started_at=at, last_seen=at
        )
    )
    return get(connection, worker_id)


def beat(connection: Connection, worker_id: str, now: float | None = None) -> bool:
    """Say that the worker is alive; returns whether it was asked to drain."""
    draining = connection.execute(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(last_seen=moment(connection, now))
        .returning(Worker.draining)
    ).scalar_one_or_none()
    if draining is None:
        raise NotFound("worker", worker_id)
    return draining


def drain(connection: Connection, worker_id: str, draining: bool = True) -> WorkerRow:
    """Ask the worker to take no new step."""
    changed = connection.execute(update(Worker).where(Worker.id == worker_id).values(draining=draining))
    if changed.rowcount != 1:
        raise NotFound("worker", worker_id)
    return get(connection, worker_id)


def stop(connection: Connection, worker_id: str, now: float | None = None) -> None:
    """The worker ended as it should."""
    connection.execute(update(Worker).where(Worker.id == worker_id).values(stopped_at=stamp(now)))


def get(connection: Connection, worker_id: str) -> WorkerRow:
    row = connection.execute(_rows().where(Worker.id == worker_id)).one_or_none()
    if row is None:
        raise NotFound("worker", worker_id)
    return WorkerRow(*row)


def seen_since(connection: Connection, seen_after: float) -> list[WorkerRow]:
    """Workers that have not stopped and were heard of after `seen_after`, newest first."""
    query = _rows().where(Worker.last_seen >= seen_after, Worker.stopped_at.is_(None)).order_by(Worker.id.desc())
    return [WorkerRow(*row) for row in connection.execute(query)]


def list_page(connection: Connection, limit: int, before: str | None = None) -> list[WorkerRow]:
    """Newest first, those that are gone too; `before` is the id of the last worker of the page before."""
    query = _rows().order_by(Worker.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Worker.id < before)
    return [WorkerRow(*row) for row in connection.execute(query)]


def _rows() -> AnySelect:
    return select(
        Worker.key,
        Worker.id,
        Worker.host,
        Worker.pid,
        Worker.version,
        Worker.schema,
        Worker.draining,
        Worker.started_at,
        Worker.last_seen,
        Worker.stopped_at,
    )
