"""Notes in the audit table: who did what, in the transaction of the act itself."""

from __future__ import annotations

from sqlalchemy import Connection

from crosstune.db.repositories import audit
from crosstune.service.principal import Principal


def note(connection: Connection, caller: Principal, action: str, resource: str) -> None:
    audit.write(connection, project_id=caller.project_id, principal=caller.project, action=action, resource=resource)
