"""Who did what: an append-only list per project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from crosstune.db.engine import stamp
from crosstune.db.tables import Audit


@dataclass(frozen=True, slots=True)
class AuditRow:
    key: int
    principal: str
    action: str
    resource: str
    note: str
    detail: Any
    created_at: float


def write(
    connection: Connection,
    *,
    project_id: str,
    principal: str,
    action: str,
    resource: str,
    note: str = "",
    detail: dict[str, Any] | None = None,
    now: float | None = None,
) -> None:
    """Write it in the transaction of the act itself."""
    row = {"project_id": project_id, "principal": principal, "action": action, "resource": resource}
    connection.execute(_WRITE, {**row, "note": note, "detail": detail, "created_at": stamp(now)})


_WRITE = insert(Audit)


def list_page(
    connection: Connection, project_id: str, limit: int, before: int | None = None, resource: str | None = None
) -> list[AuditRow]:
    """Newest first; `before` is the key of the last row of the page before."""
    query = (
        select(Audit.key, Audit.principal, Audit.action, Audit.resource, Audit.note, Audit.detail, Audit.created_at)
        .where(Audit.project_id == project_id)
        .order_by(Audit.key.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(Audit.key < before)
    if resource is not None:
        query = query.where(Audit.resource == resource)
    return [AuditRow(*row) for row in connection.execute(query)]
