"""Projects and the keys that open them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from crosstune.db.codec import digest
from crosstune.db.engine import stamp
from crosstune.db.errors import NotFound
from crosstune.db.ids import Prefix, new_id
from crosstune.db.tables import ApiKey, Project

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class ProjectRow:
    key: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ApiKeyRow:
    id: str
    project_id: str
    name: str
    scopes: tuple[str, ...]


def get(connection: Connection, project_id: str = DEFAULT_PROJECT) -> ProjectRow:
    row = connection.execute(
        select(Project.key, Project.id, Project.name).where(Project.id == project_id)
    ).one_or_none()
    if row is None:
        raise NotFound("project", project_id)
    return ProjectRow(*row)


def create(connection: Connection, name: str, now: float | None = None) -> ProjectRow:
    project_id = new_id(Prefix.PROJECT)
    connection.execute(insert(Project).values(id=project_id, name=name, created_at=stamp(now)))
    return get(connection, project_id)


def add_api_key(
    connection: Connection,
    project_id: str,
    name: str,
    secret_sha256: str,
    scopes: Sequence[str],
    expires_at: float | None = None,
    now: float | None = None,
) -> str:
    """Store the hash of a new key (hexadecimal) and return the key's id."""
    key_id = new_id(Prefix.API_KEY)
    connection.execute(
        insert(ApiKey).values(
            id=key_id,
            project_id=project_id,
            name=name,
            secret_sha256=digest(secret_sha256),
            scopes=list(scopes),
            created_at=stamp(now),
            expires_at=expires_at,
        )
    )
    return key_id


def find_api_key(connection: Connection, secret_sha256: str, now: float | None = None) -> ApiKeyRow | None:
    """The key with this hash, unless it was revoked or has expired."""
    row = connection.execute(
        select(ApiKey.id, ApiKey.project_id, ApiKey.name, ApiKey.scopes).where(
            ApiKey.secret_sha256 == digest(secret_sha256),
            ApiKey.revoked_at.is_(None),
            ApiKey.expires_at.is_(None) | (ApiKey.expires_at > stamp(now)),
        )
    ).one_or_none()
    return None if row is None else ApiKeyRow(row.id, row.project_id, row.name, tuple(row.scopes))


def revoke_api_key(connection: Connection, key_id: str, now: float | None = None) -> None:
    changed = connection.execute(update(ApiKey).where(ApiKey.id == key_id).values(revoked_at=stamp(now)))
    if changed.rowcount == 0:
        raise NotFound("API key", key_id)


def has_api_keys(connection: Connection) -> bool:
    """True when any key is in force: only then may the service listen beyond loopback."""
    return connection.execute(select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1)).first() is not None
