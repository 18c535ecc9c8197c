"""The first answer to each Idempotency-Key, so that a repeated request does no second work.

Best used in one transaction with the work: then either both the work and its answer are stored, or neither. Where the
work cannot be in one transaction, `begin` and `complete` may be in two; a request that dies in between blocks its key
for a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from crosstune.db.codec import digest
from crosstune.db.engine import stamp
from crosstune.db.errors import IdempotencyConflict, IdempotencyInProgress, NotFound
from crosstune.db.repositories.inserting import insert_new
from crosstune.db.tables import IdempotencyKey

KEEP_S = 24 * 3600.0
"""How long an answer is kept."""
RUNNING_S = 60.0
"""How long a request may run before its key is free again."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    status_code: int
    answer: Any


def begin(
    connection: Connection, project_id: str, key: str, body_sha256: str, now: float | None = None
) -> StoredAnswer | None:
    """None for the first request with this key, which is then to be answered; else the first one's answer.

    `body_sha256` covers everything that makes a request another one (method, path, body). IdempotencyConflict when it
    differs, IdempotencyInProgress while the first request has no answer yet.
    """
    at = stamp(now)
    same = (IdempotencyKey.project_id == project_id, IdempotencyKey.key == key)
    connection.execute(delete(IdempotencyKey).where(*same, IdempotencyKey.expires_at <= at))
    added = insert_new(
        connection,
        IdempotencyKey,
        project_id=project_id,
        key=key,
        body_sha256=digest(body_sha256),
        state="running",
        created_at=at,
        expires_at=at + RUNNING_S,
    )
    if added:
        return None
    row = connection.execute(
        select(
            IdempotencyKey.body_sha256, IdempotencyKey.state, IdempotencyKey.status_code, IdempotencyKey.answer
        ).where(*same)
    ).one()
    if row.body_sha256 != digest(body_sha256):
        raise IdempotencyConflict(key)
    if row.state == "running":
        raise IdempotencyInProgress(key)
    return StoredAnswer(row.status_code, row.answer)


def complete(
    connection: Connection, project_id: str, key: str, status_code: int, answer: Any, now: float | None = None
) -> None:
    """Store the answer for a day."""
    changed = connection.execute(
        update(IdempotencyKey)
        .where(IdempotencyKey.project_id == project_id, IdempotencyKey.key == key)
        .values(state="done", status_code=status_code, answer=answer, expires_at=stamp(now) + KEEP_S)
    )
    if changed.rowcount != 1:
        raise NotFound("Idempotency-Key", key)


def forget(connection: Connection, project_id: str, key: str) -> None:
    """The request failed in a way that a repetition may not: let it be tried again with the same key."""
    connection.execute(delete(IdempotencyKey).where(IdempotencyKey.project_id == project_id, IdempotencyKey.key == key))


def prune(connection: Connection, now: float | None = None) -> int:
    """Forget what has expired; returns how many."""
    return connection.execute(delete(IdempotencyKey).where(IdempotencyKey.expires_at <= stamp(now))).rowcount
