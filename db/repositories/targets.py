"""Targets by identity, and the facts known of their hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, or_, select

from crosstune.db.codec import digest
from crosstune.db.engine import stamp
from crosstune.db.errors import NameTaken, NotFound
from crosstune.db.ids import Prefix, new_id
from crosstune.db.repositories.inserting import insert_new
from crosstune.db.repositories.querying import AnySelect
from crosstune.db.tables import HardwareFact, Target


@dataclass(frozen=True, slots=True)
class TargetRow:
    key: int
    id: str
    identity: str
    name: str
    spec: Any
    created_at: float


@dataclass(frozen=True, slots=True)
class FactRow:
    """`origin` is detected, table or calibrated."""

    attribute: str
    value: Any
    origin: str
    version: int


def register(
    connection: Connection, *, identity: str, name: str, spec: Mapping[str, Any], now: float | None = None
) -> tuple[TargetRow, bool]:
    """The target with this identity (sha256 of `spec`'s fields), and whether it is new.

    An existing target keeps its name. NameTaken when another target has the name.
    """
    same = _rows().where(Target.identity == digest(identity))
    existing = connection.execute(same).one_or_none()
    if existing is not None:
        return _target(existing), False
    target_id = new_id(Prefix.TARGET)
    added = insert_new(
        connection,
        Target,
        id=target_id,
        identity=digest(identity),
        name=name,
        spec=dict(spec),
        created_at=stamp(now),
    )
    existing = connection.execute(same).one_or_none()
    if existing is not None:
        return _target(existing), added
    raise NameTaken("target", name, get(connection, name).id)


def get(connection: Connection, name_or_id: str) -> TargetRow:
    """By public id or by name."""
    row = connection.execute(_GET, {"target": name_or_id}).first()
    if row is None:
        raise NotFound("target", name_or_id)
    return _target(row)


def get_by_key(connection: Connection, target_key: int) -> TargetRow:
    row = connection.execute(_rows().where(Target.key == target_key)).one_or_none()
    if row is None:
        raise NotFound("target", str(target_key))
    return _target(row)


def list_page(connection: Connection, limit: int, before: str | None = None) -> list[TargetRow]:
    """Newest first; `before` is the id of the last target of the page before."""
    query = _rows().order_by(Target.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Target.id < before)
    return [_target(row) for row in connection.execute(query)]


def every(connection: Connection) -> list[TargetRow]:
    """All there are, oldest first: targets are kinds of machines, so there are hundreds at most."""
    return [_target(row) for row in connection.execute(_rows().order_by(Target.id))]


def add_facts(
    connection: Connection,
    target_key: int,
    facts: Mapping[str, Any],
    origin: str,
    now: float | None = None,
) -> None:
    """Store attributes of the hardware; one whose value or origin differs gets a new version, the rest stay."""
    known = {fact.attribute: fact for fact in facts_of(connection, target_key)}
    rows = []
    for attribute, value in facts.items():
        before = known.get(attribute)
        if before is not None and before.value == value and before.origin == origin:
            continue
        version = 1 if before is None else before.version + 1
        rows.append(
            {
                "target_key": target_key,
                "attribute": attribute,
                "value": value,
                "origin": origin,
                "version": version,
                "created_at": stamp(now),
            }
        )
    if rows:
        connection.execute(insert(HardwareFact), rows)


def facts_of(connection: Connection, target_key: int) -> list[FactRow]:
    """The latest version of each attribute, by name."""
    latest = (
        select(HardwareFact.attribute, func.max(HardwareFact.version).label("version"))
        .where(HardwareFact.target_key == target_key)
        .group_by(HardwareFact.attribute)
        .subquery()
    )
    rows = connection.execute(
        select(HardwareFact.attribute, HardwareFact.value, HardwareFact.origin, HardwareFact.version)
        .join(
            latest,
            (latest.c.attribute == HardwareFact.attribute) & (latest.c.version == HardwareFact.version),
        )
        .where(HardwareFact.target_key == target_key)
        .order_by(HardwareFact.attribute)
    )
    return [FactRow(*row) for row in rows]


def all_keys(connection: Connection) -> Sequence[int]:
    return connection.execute(select(Target.key).order_by(Target.key)).scalars().all()


def _target(row: Any) -> TargetRow:
    return TargetRow(row.key, row.id, row.identity.hex(), row.name, row.spec, row.created_at)


def _rows() -> AnySelect:
    return select(Target.key, Target.id, Target.identity, Target.name, Target.spec, Target.created_at)


_GET = (
    _rows()
    .where(or_(Target.id == bindparam("target"), Target.name == bindparam("target")))
    .order_by(Target.id != bindparam("target"))
)
