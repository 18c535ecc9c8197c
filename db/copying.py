"""All rows of one database into another, as of one moment: backup, restore, and the way from SQLite to PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, Table, func, insert, select, text

from crosstune.db import migrate
from crosstune.db.engine import is_postgresql, reading, transaction
from crosstune.db.errors import StoreError
from crosstune.db.tables import Base, Project

CHUNK_ROWS = 500


class NotEmpty(StoreError):
    """The database that is to be filled holds something."""


def copy(source: Engine, destination: Engine) -> dict[str, int]:
    """How many rows of each table were copied. Both have this version's tables; all or nothing is written.

    Raises NotEmpty, SchemaOutdated.
    """
    migrate.require_head(source)
    migrate.require_head(destination)
    with reading(source) as rows_from, transaction(destination) as rows_to:
        if is_postgresql(rows_from):  # SQLite's transactions see one moment anyway
            rows_from.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        _make_room(rows_to)
        return {table.name: _copy_table(table, rows_from, rows_to) for table in Base.metadata.sorted_tables}


def _make_room(connection: Connection) -> None:
    """Only the project that every new database has may be there."""
    for table in Base.metadata.sorted_tables:
        if table.name != Project.__tablename__ and connection.execute(select(1).select_from(table).limit(1)).first():
            raise NotEmpty(f"the table {table.name} holds rows already; name an empty database")
    connection.execute(Project.__table__.delete())  # type: ignore[attr-defined]


def _copy_table(table: Table, source: Connection, destination: Connection) -> int:
    key = [*table.primary_key.columns]
    rows = source.execution_options(yield_per=CHUNK_ROWS).execute(select(table).order_by(*key))
    count = 0
    for chunk in rows.mappings().partitions(CHUNK_ROWS):
        values: list[dict[str, Any]] = [dict(row) for row in chunk]
        destination.execute(insert(table), values)
        count += len(values)
    if is_postgresql(destination):
        _go_on_counting(table, destination)
    return count


def _go_on_counting(table: Table, connection: Connection) -> None:
    """Rows that come later get keys after those that were copied."""
    for column in table.primary_key.columns:
        named = select(func.pg_get_serial_sequence(table.name, column.name))
        sequence = connection.execute(named).scalar_one_or_none()
        last = None if sequence is None else connection.execute(select(func.max(column))).scalar_one()
        if last is not None:
            connection.execute(select(func.setval(sequence, last)))
