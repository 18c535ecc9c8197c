"""Versions of the cost model; the one in use is the champion of its name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from crosstune.db.codec import digest
from crosstune.db.engine import stamp
from crosstune.db.errors import NotFound
from crosstune.db.ids import Prefix, new_id
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.tables import CostModel


class CostModelStatus(StrEnum):
    CANDIDATE = "candidate"
    CHAMPION = "champion"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class CostModelRow:
    key: int
    id: str
    name: str
    version: int
    parent_key: int | None
    status: CostModelStatus
    data_fingerprint: str
    feature_layout: int
    artifact_id: str | None
    card: Any
    created_at: float


def add(
    connection: Connection,
    *,
    name: str,
    data_fingerprint: str,
    feature_layout: int,
    card: dict[str, Any],
    artifact_id: str | None = None,
    parent_key: int | None = None,
    now: float | None = None,
) -> CostModelRow:
    """A candidate with the next version of its name; the fingerprint (sha256) is of the data it learnt from."""
    latest = connection.execute(select(func.max(CostModel.version)).where(CostModel.name == name)).scalar_one()
    model_id = new_id(Prefix.COST_MODEL)
    connection.execute(
        insert(CostModel).values(
            id=model_id,
            name=name,
            version=(latest or 0) + 1,
            parent_key=parent_key,
            status=CostModelStatus.CANDIDATE,
            data_fingerprint=digest(data_fingerprint),
            feature_layout=feature_layout,
            artifact_id=artifact_id,
            card=card,
            created_at=stamp(now),
        )
    )
    return get(connection, model_id)


def promote(connection: Connection, model_id: str) -> CostModelRow:
    """Make it the champion of its name and retire the one before."""
    model = get(connection, model_id)
    connection.execute(
        update(CostModel)
        .where(CostModel.name == model.name, CostModel.status == CostModelStatus.CHAMPION, CostModel.id != model_id)
        .values(status=CostModelStatus.RETIRED)
    )
    connection.execute(update(CostModel).where(CostModel.id == model_id).values(status=CostModelStatus.CHAMPION))
    return get(connection, model_id)


def champion(connection: Connection, name: str) -> CostModelRow | None:
    query = _rows().where(CostModel.name == name, CostModel.status == CostModelStatus.CHAMPION)
    row = connection.execute(query.order_by(CostModel.version.desc()).limit(1)).one_or_none()
    return None if row is None else _model(row)


def get(connection: Connection, model_id: str) -> CostModelRow:
    row = connection.execute(_rows().where(CostModel.id == model_id)).one_or_none()
    if row is None:
        raise NotFound("cost model", model_id)
    return _model(row)


def list_page(connection: Connection, limit: int, before: str | None = None) -> list[CostModelRow]:
    """Newest first; `before` is the id of the last model of the page before."""
    query = _rows().order_by(CostModel.id.desc()).limit(limit)
    if before is not None:
        query = query.where(CostModel.id < before)
    return [_model(row) for row in connection.execute(query)]


def _model(row: Any) -> CostModelRow:
    values = dict(row._mapping)
    values["status"] = CostModelStatus(values["status"])
    values["data_fingerprint"] = values["data_fingerprint"].hex()
    return CostModelRow(**values)


def _rows() -> AnySelect:
    return select(
        CostModel.key,
        CostModel.id,
        CostModel.name,
        CostModel.version,
        CostModel.parent_key,
        CostModel.status,
        CostModel.data_fingerprint,
        CostModel.feature_layout,
        CostModel.artifact_id,
        CostModel.card,
        CostModel.created_at,
    )
