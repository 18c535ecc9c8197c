"""Versions of the cost model; the one in use is the champion of its name.

A version begins as a row in training, which its step ends: as a candidate with files, failed, or cancelled. Its card
holds all else: `request`, `progress`, `judged`, what it learnt from, `failure`, and of a champion what it `replaced`.
"""

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
    TRAINING = "training"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    CANDIDATE = "candidate"
    CHAMPION = "champion"
    RETIRED = "retired"


LIVE = (CostModelStatus.TRAINING, CostModelStatus.CANCELLING)
USABLE = (CostModelStatus.CANDIDATE, CostModelStatus.CHAMPION, CostModelStatus.RETIRED)
NOTHING_YET = "0" * 64
"""Fingerprint of the data of a version in training."""


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
    status: CostModelStatus = CostModelStatus.CANDIDATE,
    now: float | None = None,
) -> CostModelRow:
    """The next version of its name; the fingerprint (sha256) is of the data it learnt from."""
    latest = connection.execute(select(func.max(CostModel.version)).where(CostModel.name == name)).scalar_one()
    model_id = new_id(Prefix.COST_MODEL)
    connection.execute(
        insert(CostModel).values(
            id=model_id,
            name=name,
            version=(latest or 0) + 1,
            parent_key=parent_key,
            status=status,
            data_fingerprint=digest(data_fingerprint),
            feature_layout=feature_layout,
            artifact_id=artifact_id,
            card=card,
            created_at=stamp(now),
        )
    )
    return get(connection, model_id)


def note_progress(connection: Connection, model_id: str, lines: list[dict[str, Any]]) -> None:
    """Add to what its training has told so far."""
    card = get(connection, model_id).card
    _set(connection, model_id, card={**card, "progress": [*card.get("progress", []), *lines]})


def note_judged(connection: Connection, model_id: str, judged: dict[str, Any]) -> None:
    """Replace what is known of its quality by a newer judgement."""
    card = get(connection, model_id).card
    _set(connection, model_id, card={**card, "judged": judged})


def finish(
    connection: Connection, model_id: str, *, data_fingerprint: str, card: dict[str, Any], artifact_id: str
) -> CostModelRow:
    """Its training is done; `card` is added to what is there."""
    _set(
        connection,
        model_id,
        status=CostModelStatus.CANDIDATE,
        data_fingerprint=digest(data_fingerprint),
        artifact_id=artifact_id,
        card={**get(connection, model_id).card, **card},
    )
    return get(connection, model_id)


def end(connection: Connection, model_id: str, status: CostModelStatus, reason: str) -> None:
    """Its training has ended without a model."""
    model = get(connection, model_id)
    if model.status in LIVE:
        _set(connection, model_id, status=status, card={**model.card, "failure": reason})


def ask_to_cancel(connection: Connection, model_id: str) -> None:
    connection.execute(
        update(CostModel)
        .where(CostModel.id == model_id, CostModel.status == CostModelStatus.TRAINING)
        .values(status=CostModelStatus.CANCELLING)
    )


def promote(connection: Connection, model_id: str) -> CostModelRow:
    """Make it the champion of its name and retire the one before, to which `roll_back` returns.

    A version that was champion before is taken out of the line first, or rolling back would go round in circles.
    """
    model = get(connection, model_id)
    before = champion(connection, model.name)
    if before is not None and before.id == model_id:
        return model
    line = connection.execute(_rows().where(CostModel.name == model.name, CostModel.status.in_(USABLE))).all()
    for other in map(_model, line):
        if other.card.get("replaced") == model_id:
            _set(connection, other.id, card={**other.card, "replaced": model.card.get("replaced")})
    if before is not None:
        _set(connection, before.id, status=CostModelStatus.RETIRED)
    replaced = None if before is None else before.id
    _set(connection, model_id, status=CostModelStatus.CHAMPION, card={**model.card, "replaced": replaced})
    return get(connection, model_id)


def mark_withdrawn(connection: Connection, since: float, reason: str, measurements: int) -> list[str]:
    """Note on every version made at `since` or later that measurements were taken back which it may have learnt from;
    their ids."""
    marked = [model for model in usable(connection) if model.created_at >= since]
    for model in marked:
        notes = [*model.card.get("withdrawn", []), {"reason": reason, "measurements": measurements}]
        _set(connection, model.id, card={**model.card, "withdrawn": notes})
    return [model.id for model in marked]


def roll_back(connection: Connection, name: str) -> CostModelRow | None:
    """Retire the champion in favour of the one that it replaced; None: there is no champion now."""
    model = champion(connection, name)
    if model is None:
        return None
    _set(connection, model.id, status=CostModelStatus.RETIRED)
    before = model.card.get("replaced")
    if before is not None:
        _set(connection, before, status=CostModelStatus.CHAMPION)
    return champion(connection, name)


def _set(connection: Connection, model_id: str, **values: Any) -> None:
    connection.execute(update(CostModel).where(CostModel.id == model_id).values(**values))


def in_training(connection: Connection) -> CostModelRow | None:
    """The oldest version whose training has not ended."""
    row = connection.execute(_rows().where(CostModel.status.in_(LIVE)).order_by(CostModel.key).limit(1)).one_or_none()
    return None if row is None else _model(row)


def usable(connection: Connection) -> list[CostModelRow]:
    """Every version that has files, newest first."""
    query = _rows().where(CostModel.status.in_(USABLE), CostModel.artifact_id.is_not(None))
    return [_model(row) for row in connection.execute(query.order_by(CostModel.id.desc()))]


def champion(connection: Connection, name: str) -> CostModelRow | None:
    query = _rows().where(CostModel.name == name, CostModel.status == CostModelStatus.CHAMPION)
    row = connection.execute(query.order_by(CostModel.version.desc()).limit(1)).one_or_none()
    return None if row is None else _model(row)


def get(connection: Connection, model_id: str) -> CostModelRow:
    row = connection.execute(_rows().where(CostModel.id == model_id)).one_or_none()
    if row is None:
        raise NotFound("cost model", model_id)
    return _model(row)


def id_of(connection: Connection, key: int) -> str:
    return str(connection.execute(select(CostModel.id).where(CostModel.key == key)).scalar_one())


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
