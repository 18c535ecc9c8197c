"""Labels: a key and a value on any resource of a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select

from crosstune.db.tables import Label


def replace(connection: Connection, project_id: str, resource: str, labels: Mapping[str, str]) -> None:
    """Give the resource exactly these labels."""
    connection.execute(delete(Label).where(Label.project_id == project_id, Label.resource == resource))
    if labels:
        rows = [
            {"project_id": project_id, "resource": resource, "key": key, "value": value}
            for key, value in sorted(labels.items())
        ]
        connection.execute(insert(Label), rows)


def of(connection: Connection, project_id: str, resource: str) -> dict[str, str]:
    query = (
        select(Label.key, Label.value)
        .where(Label.project_id == project_id, Label.resource == resource)
        .order_by(Label.key)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def of_many(connection: Connection, project_id: str, resources: Sequence[str]) -> dict[str, dict[str, str]]:
    """The labels of each resource that has any."""
    found: dict[str, dict[str, str]] = {}
    for resource, key, value in connection.execute(_OF_MANY, {"project": project_id, "resources": resources}):
        found.setdefault(resource, {})[key] = value
    return found


_OF_MANY = (
    select(Label.resource, Label.key, Label.value)
    .where(Label.project_id == bindparam("project"), Label.resource.in_(bindparam("resources", expanding=True)))
    .order_by(Label.resource, Label.key)
)


def find(connection: Connection, project_id: str, key: str, value: str | None = None) -> list[str]:
    """Ids of the resources that have the label; without `value` any value does."""
    query = select(Label.resource).where(Label.project_id == project_id, Label.key == key).order_by(Label.resource)
    if value is not None:
        query = query.where(Label.value == value)
    return list(connection.execute(query).scalars())
