"""Insert unless a unique key is taken, in the words of both databases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, literal
from sqlalchemy.dialects import postgresql, sqlite

from crosstune.db.engine import is_postgresql
from crosstune.db.tables import Base


def insert_new(connection: Connection, table: type[Base], **values: Any) -> bool:
    """Insert one row; False, and nothing changed, when one of the table's unique keys is taken.

    On PostgreSQL it waits for another transaction that is inserting the same key, so the row that is in the way can
    be read afterwards.
    """
    insert = postgresql.insert if is_postgresql(connection) else sqlite.insert
    # RETURNING gives the row only when it was inserted; row counts of an INSERT are not kept on every database.
    statement = insert(table).values(**values).on_conflict_do_nothing().returning(literal(1))
    return connection.execute(statement).first() is not None


def insert_missing(connection: Connection, table: type[Base], rows: list[dict[str, Any]]) -> None:
    """Insert many rows, passing over those whose unique key is taken. Give them in the order of that key."""
    if not rows:
        return
    insert = postgresql.insert if is_postgresql(connection) else sqlite.insert
    connection.execute(insert(table).on_conflict_do_nothing(), rows)
