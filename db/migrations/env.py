"""Run by Alembic: on the connection that crosstune.db.migrate gives, or on `-x url=…` for a developer."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from crosstune.db.engine import create_engine
from crosstune.db.tables import Base


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite cannot alter a table, so Alembic copies it.
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        # crosstune.db.engine begins SQLite's transactions itself, so a migration that fails leaves nothing behind.
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = create_engine(context.get_x_argument(as_dictionary=True)["url"])
    with engine.begin() as opened:
        run(opened)
    engine.dispose()
