"""Networks: content-addressed within a project, imported by a step, deletable with their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from crosstune.db.codec import digest, json_sha256
from crosstune.db.engine import stamp
from crosstune.db.errors import NameTaken, NotFound
from crosstune.db.ids import Prefix, new_id
from crosstune.db.repositories.inserting import insert_new
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.repositories.workloads import WorkloadRow, workload_of, workload_rows
from crosstune.db.tables import Network, NetworkTask, Workload


class NetworkState(StrEnum):
    IMPORTING = "importing"
    READY = "ready"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """`inputs` and `outputs` are `[[name, dtype, [sizes]], …]`; `refusal` is `{code, detail, facts}`."""

    id: str
    project_id: str
    name: str
    content_sha256: str
    graph_key: str | None
    shapes: Any
    state: NetworkState
    refusal: Any
    inputs: Any
    outputs: Any
    layout: str | None
    layout_note: str | None
    synthetic_weights: bool
    pipeline_version: int | None
    size_bytes: int
    artifact_id: str | None
    created_at: float
    updated_at: float
    deleted_at: float | None


@dataclass(frozen=True, slots=True)
class NetworkTaskRow:
    position: int
    weight: int
    workload: WorkloadRow


def submit(
    connection: Connection,
    *,
    project_id: str,
    name: str,
    content_sha256: str,
    shapes: dict[str, Any],
    size_bytes: int,
    artifact_id: str | None,
    now: float | None = None,
) -> tuple[NetworkRow, bool]:
    """The network with these bytes and shapes, and whether it is new (importing) or was there already.

    NameTaken when another network of the project has the name. The import step is the caller's to add.
    """
    created_at = stamp(now)
    network_id = new_id(Prefix.NETWORK)
    same = (
        Network.project_id == project_id,
        Network.content_sha256 == digest(content_sha256),
        Network.shapes_sha256 == json_sha256(shapes),
        Network.deleted_at.is_(None),
    )
    existing = connection.execute(_rows().where(*same)).one_or_none()
    if existing is not None:
        return _network(existing), False
    added = insert_new(
        connection,
        Network,
        id=network_id,
        project_id=project_id,
        name=name,
        content_sha256=digest(content_sha256),
        shapes_sha256=json_sha256(shapes),
        shapes=shapes,
        state=NetworkState.IMPORTING,
        synthetic_weights=False,
        size_bytes=size_bytes,
        artifact_id=artifact_id,
        created_at=created_at,
        updated_at=created_at,
    )
    if added:
        return get(connection, network_id), True
    existing = connection.execute(_rows().where(*same)).one_or_none()  # another request was faster
    if existing is not None:
        return _network(existing), False
    raise NameTaken("network", name, get_by_name(connection, project_id, name).id)


def mark_ready(
    connection: Connection,
    network_id: str,
    *,
    graph_key: str,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    layout: str,
    layout_note: str,
    synthetic_weights: bool,
    pipeline_version: int,
    tasks: Sequence[tuple[int, int]],
    now: float | None = None,
) -> NetworkRow:
    """Store what the import found; `tasks` are (workload key, weight) in the network's order."""
    _set(
        connection,
        network_id,
        now,
        graph_key=digest(graph_key),
        inputs=list(inputs),
        outputs=list(outputs),
        layout=layout,
        layout_note=layout_note,
        synthetic_weights=synthetic_weights,
        pipeline_version=pipeline_version,
        state=NetworkState.READY,
        refusal=None,
    )
    if tasks:
        connection.execute(
            insert(NetworkTask),
            [
                {"network_id": network_id, "position": position, "workload_key": workload_key, "weight": weight}
                for position, (workload_key, weight) in enumerate(tasks)
            ],
        )
    return get(connection, network_id)


def refuse(
    connection: Connection,
    network_id: str,
    code: str,
    detail: str,
    facts: dict[str, Any] | None = None,
    now: float | None = None,
) -> None:
    """The import found a reason why the network cannot be tuned; nothing else of it is stored."""
    refusal = {"code": code, "detail": detail, "facts": facts or {}}
    _set(connection, network_id, now, state=NetworkState.REFUSED, refusal=refusal)


def get(connection: Connection, network_id: str, project_id: str | None = None) -> NetworkRow:
    """The network, also a deleted one; NotFound with `project_id` when it belongs to another project or is deleted."""
    row = connection.execute(_GET, {"network": network_id}).one_or_none()
    found = None if row is None else _network(row)
    if found is None or (project_id is not None and (found.project_id != project_id or found.deleted_at is not None)):
        raise NotFound("network", network_id)
    return found


def get_by_name(connection: Connection, project_id: str, name: str) -> NetworkRow:
    query = _rows().where(Network.project_id == project_id, Network.name == name, Network.deleted_at.is_(None))
    return _one(connection, query, name)


def list_page(
    connection: Connection, project_id: str, limit: int, before: str | None = None, state: str | None = None
) -> list[NetworkRow]:
    """Newest first, without deleted ones; `before` is the id of the last network of the page before."""
    query = _rows().where(Network.project_id == project_id, Network.deleted_at.is_(None))
    if before is not None:
        query = query.where(Network.id < before)
    if state is not None:
        query = query.where(Network.state == state)
    return [_network(row) for row in connection.execute(query.order_by(Network.id.desc()).limit(limit))]


def tasks_of(connection: Connection, network_id: str) -> list[NetworkTaskRow]:
    """The network's workloads in its own order, with how often one inference calls each."""
    rows = connection.execute(_TASKS_OF, {"network": network_id})
    return [NetworkTaskRow(row.position, row.weight, workload_of(row)) for row in rows]


_TASKS_OF = (
    workload_rows()
    .add_columns(NetworkTask.position, NetworkTask.weight)
    .join(NetworkTask, NetworkTask.workload_key == Workload.key)
    .where(NetworkTask.network_id == bindparam("network"))
    .order_by(NetworkTask.position)
)


def task_counts(connection: Connection, network_ids: Sequence[str]) -> dict[str, int]:
    """How many different workloads each network has; networks without any are left out."""
    query = (
        select(NetworkTask.network_id, func.count())
        .where(NetworkTask.network_id.in_(network_ids))
        .group_by(NetworkTask.network_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def delete(connection: Connection, network_id: str, project_id: str, now: float | None = None) -> str | None:
    """Hide the network and forget its bytes; returns the id of their artifact, for the caller to remove."""
    network = get(connection, network_id, project_id)
    _set(connection, network_id, now, deleted_at=stamp(now), artifact_id=None)
    return network.artifact_id


def _set(connection: Connection, network_id: str, now: float | None, **values: Any) -> None:
    changed = connection.execute(
        update(Network).where(Network.id == network_id).values(updated_at=stamp(now), **values)
    )
    if changed.rowcount != 1:
        raise NotFound("network", network_id)


def _one(connection: Connection, query: AnySelect, name: str) -> NetworkRow:
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("network", name)
    return _network(row)


def _network(row: Any) -> NetworkRow:
    values = dict(row._mapping)
    values["state"] = NetworkState(values["state"])
    values["content_sha256"] = values["content_sha256"].hex()
    values["graph_key"] = None if values["graph_key"] is None else values["graph_key"].hex()
    return NetworkRow(**values)


def _rows() -> AnySelect:
    return select(
        Network.id,
        Network.project_id,
        Network.name,
        Network.content_sha256,
        Network.graph_key,
        Network.shapes,
        Network.state,
        Network.refusal,
        Network.inputs,
        Network.outputs,
        Network.layout,
        Network.layout_note,
        Network.synthetic_weights,
        Network.pipeline_version,
        Network.size_bytes,
        Network.artifact_id,
        Network.created_at,
        Network.updated_at,
        Network.deleted_at,
    )


_GET = _rows().where(Network.id == bindparam("network"))
