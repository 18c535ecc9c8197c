"""Bytes that the store has taken, as rows of the database."""

from __future__ import annotations

from sqlalchemy import Connection

from crosstune.db.repositories import artifacts
from crosstune.service.store import Stored


def add_artifact(connection: Connection, project_id: str, kind: str, stored: Stored, owner: str | None = None) -> str:
    """The artifact's id. `owner`: id of the network, build or cost model that it belongs to."""
    return artifacts.add(
        connection,
        project_id=project_id,
        sha256=stored.sha256,
        kind=kind,
        size_bytes=stored.size_bytes,
        uri=stored.uri,
        owner=owner,
    ).id
