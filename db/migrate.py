"""Bring a database to this version's tables, and refuse one that is not there.

The migrations lie beside this file, so an installed wheel needs nothing else.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from crosstune.db.engine import create_engine, is_postgresql, reading
from crosstune.db.errors import SchemaOutdated

_FOLDER = Path(__file__).resolve().parent / "migrations"
_LOCK = 0x63726F7373  # "cross": one migration at a time on PostgreSQL; on SQLite the transaction is the lock


def upgrade(url: str) -> str:
    """Apply what is missing, all or nothing; returns the revision reached. Safe to call from many processes at once."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            _suspend_foreign_keys(connection)
            with connection.begin():
                upgrade_connection(connection)
    finally:
        engine.dispose()
    return head()


def upgrade_connection(connection: Connection, revision: str = "head") -> None:
    """Apply what is missing inside the caller's transaction."""
    if is_postgresql(connection):
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    command.upgrade(config_for(connection), revision)


def config_for(connection: Connection) -> Config:
    """Alembic's settings for a command on this connection."""
    config = _config()
    config.attributes["connection"] = connection
    return config


def current(engine: Engine) -> str | None:
    """The revision that the database has, or None when it has no tables of crosstune."""
    with reading(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """The revision that this version of crosstune needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None, "the package has at least one migration"
    return revision


def require_head(engine: Engine) -> None:
    """Raise SchemaOutdated, whose text names the command that helps, unless the database has this version's tables."""
    found, needed = current(engine), head()
    if found != needed:
        raise SchemaOutdated(found, needed, newer=is_newer(found))


def is_newer(found: str | None) -> bool:
    """Whether a later version made the tables: this one has no migration that leads there. As migrations only add, a
    process that runs already goes on with them."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return found is not None and found not in known


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config


def _suspend_foreign_keys(connection: Connection) -> None:
    """While SQLite's tables are copied, references to them would be taken for broken. Not possible in a transaction."""
    if not is_postgresql(connection):
        cursor = connection.connection.cursor()
        cursor.execute("PRAGMA foreign_keys=OFF")
        cursor.close()
