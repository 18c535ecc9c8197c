"""Which bytes are in the artifact store, whose they are and until when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from crosstune.db.codec import digest
from crosstune.db.engine import stamp
from crosstune.db.errors import NotFound
from crosstune.db.ids import Prefix, new_id
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.tables import Artifact


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """`uri` says where the bytes are; `owner` is the id of the network, build or cost model they belong to."""

    id: str
    project_id: str
    sha256: str
    kind: str
    size_bytes: int
    uri: str
    owner: str | None
    created_at: float
    expires_at: float | None


def add(
    connection: Connection,
    *,
    project_id: str,
    sha256: str,
    kind: str,
    size_bytes: int,
    uri: str,
    owner: str | None = None,
    expires_at: float | None = None,
    now: float | None = None,
) -> ArtifactRow:
    artifact_id = new_id(Prefix.ARTIFACT)
    connection.execute(
        insert(Artifact).values(
            id=artifact_id,
            project_id=project_id,
            sha256=digest(sha256),
            kind=kind,
            size_bytes=size_bytes,
            uri=uri,
            owner=owner,
            created_at=stamp(now),
            expires_at=expires_at,
        )
    )
    return get(connection, artifact_id)


def set_owner(connection: Connection, artifact_id: str, owner: str) -> None:
    changed = connection.execute(update(Artifact).where(Artifact.id == artifact_id).values(owner=owner))
    if changed.rowcount != 1:
        raise NotFound("artifact", artifact_id)


def get(connection: Connection, artifact_id: str, project_id: str | None = None) -> ArtifactRow:
    query = _rows().where(Artifact.id == artifact_id)
    if project_id is not None:
        query = query.where(Artifact.project_id == project_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("artifact", artifact_id)
    return _artifact(row)


def find(connection: Connection, project_id: str, sha256: str, kind: str) -> ArtifactRow | None:
    """The project's artifact with these bytes, when it is stored already."""
    query = _rows().where(Artifact.project_id == project_id, Artifact.sha256 == digest(sha256), Artifact.kind == kind)
    row = connection.execute(query.order_by(Artifact.id).limit(1)).one_or_none()
    return None if row is None else _artifact(row)


def expired(connection: Connection, limit: int, now: float | None = None) -> list[ArtifactRow]:
    query = _rows().where(Artifact.expires_at <= stamp(now)).order_by(Artifact.expires_at).limit(limit)
    return [_artifact(row) for row in connection.execute(query)]


def remove(connection: Connection, artifact_id: str) -> bool:
    """Forget the row; returns True when no other row has the same URI, so that the bytes may be deleted."""
    artifact = get(connection, artifact_id)
    connection.execute(delete(Artifact).where(Artifact.id == artifact_id))
    left = select(func.count()).select_from(Artifact).where(Artifact.uri == artifact.uri)
    return connection.execute(left).scalar_one() == 0


def _artifact(row: Any) -> ArtifactRow:
    return ArtifactRow(**{**row._mapping, "sha256": row.sha256.hex()})


def _rows() -> AnySelect:
    return select(
        Artifact.id,
        Artifact.project_id,
        Artifact.sha256,
        Artifact.kind,
        Artifact.size_bytes,
        Artifact.uri,
        Artifact.owner,
        Artifact.created_at,
        Artifact.expires_at,
    )
