"""The schema of the database that the settings name, with every refusal told as a CrosstuneError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from crosstune.db import migrate
from crosstune.db.engine import create_engine
from crosstune.db.errors import StoreError
from crosstune.service.settings import Settings
from crosstune.tuner.contracts import CrosstuneError


class DatabaseRefused(CrosstuneError):
    """The database cannot be used as it is; the text says what to do."""


@contextmanager
def told(settings: Settings) -> Iterator[None]:
    """Whatever the database raises in the block becomes DatabaseRefused."""
    try:
        yield
    except StoreError as error:
        raise DatabaseRefused(str(error)) from error
    except SQLAlchemyError as error:
        raise _refusal(settings, getattr(error, "orig", None) or error) from error


def make_data_dir(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        text = f"the folder {settings.data_dir} cannot be made: {error.strerror}; CROSSTUNE_DATA_DIR names it"
        raise DatabaseRefused(text) from error


def prepare(settings: Settings) -> None:
    """Before serving: SQLite is created and upgraded; a shared database is only ever upgraded on purpose.

    :raises DatabaseRefused: the database does not answer, or its tables are not this version's.
    """
    with _engine(settings) as engine:
        if engine.dialect.name != "sqlite":
            migrate.require_head(engine)
            return
    upgrade(settings)


def upgrade(settings: Settings) -> str:
    """Create the tables or bring them to this version; the revision reached."""
    make_data_dir(settings)
    with _engine(settings):
        return migrate.upgrade(settings.database_url)


def current(settings: Settings) -> tuple[str | None, str]:
    """The revision that the database has (None without tables) and the one that this version needs."""
    make_data_dir(settings)
    with _engine(settings) as engine:
        return migrate.current(engine), migrate.head()


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    with told(settings):
        try:
            engine = create_engine(settings.database_url)
        except ValueError as error:  # a kind of database that is not supported
            raise _refusal(settings, error) from error
        try:
            yield engine
        finally:
            engine.dispose()


def _refusal(settings: Settings, cause: BaseException) -> DatabaseRefused:
    reason = str(cause).strip().splitlines()[0]
    return DatabaseRefused(
        f"the database {_shown(settings.database_url)} cannot be used: {reason}; CROSSTUNE_DATABASE_URL names it"
    )


def _shown(url: str) -> str:
    """The address without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "that the settings name"
