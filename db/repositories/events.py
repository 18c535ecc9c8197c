"""What happened to a job, numbered from 1 without gaps: the source of live events.

The number is taken by updating the job's row, so two transactions cannot hold the same one, and a reader that has seen
number n has seen all before it (row ids are not in commit order on PostgreSQL).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from crosstune.db.engine import stamp
from crosstune.db.errors import NotFound
from crosstune.db.tables import Event, Job

"""How long events are kept; an older position gets a snapshot instead."""


@dataclass(frozen=True, slots=True)
class EventRow:
    job_id: str
    sequence: int
    kind: str
    data: Any
    created_at: float


def append(connection: Connection, job_id: str, kind: str, data: dict[str, Any], now: float | None = None) -> int:
    """Write an event in the transaction that makes it true; returns its number. Locks the job's row."""
    taken = connection.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(event_sequence=Job.event_sequence + 1)
        .returning(Job.event_sequence, Job.project_id)
    ).one_or_none()
    if taken is None:
        raise NotFound("job", job_id)
    sequence, project_id = taken
    write(connection, job_id, sequence, project_id, kind, data, now)
    return int(sequence)


def write(
    connection: Connection,
    job_id: str,
    sequence: int,
    project_id: str,
    kind: str,
    data: dict[str, Any],
    now: float | None = None,
) -> None:
    """Write an event whose number the job's row has taken already, in the statement that changed something else."""
    row = {"job_id": job_id, "sequence": sequence, "project_id": project_id, "kind": kind, "data": data}
    connection.execute(_WRITE, {**row, "created_at": stamp(now)})


_WRITE = insert(Event)


def after(connection: Connection, job_id: str, sequence: int, limit: int = 1000) -> list[EventRow]:
    """The job's events with a greater number than `sequence`, in order."""
    return after_each(connection, {job_id: sequence}, limit)


def after_each(connection: Connection, positions: Mapping[str, int], limit: int = 1000) -> list[EventRow]:
    """For the one poller of a process: new events of many jobs, `positions` being the last number seen of each."""
    if not positions:
        return []
    newer = or_(*(and_(Event.job_id == job_id, Event.sequence > seen) for job_id, seen in positions.items()))
    rows = connection.execute(
        select(Event.job_id, Event.sequence, Event.kind, Event.data, Event.created_at)
        .where(newer)
        .order_by(Event.job_id, Event.sequence)
        .limit(limit)
    )
    return [EventRow(*row) for row in rows]


def earliest(connection: Connection, job_id: str) -> int | None:
    """The smallest number that is still kept; a reader that is further behind needs a snapshot."""
    return connection.execute(
        select(Event.sequence).where(Event.job_id == job_id).order_by(Event.sequence).limit(1)
    ).scalar_one_or_none()


def prune(connection: Connection, before: float) -> int:
    """Forget events older than `before`; returns how many."""
    return connection.execute(delete(Event).where(Event.created_at < before)).rowcount
