"""Liveness and readiness."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from crosstune import __version__
from crosstune.db.engine import reading
from crosstune.db.repositories import steps, workers
from crosstune.service import availability, room
from crosstune.service.schemas.health import Liveness, Readiness
from crosstune.service.services import Services

NEWER_SCHEMA = "a newer crosstune has upgraded the database: upgrade this process too"
NO_WORKER = "no live worker: work is accepted and waits until one starts"


def liveness() -> Liveness:
    return Liveness(version=__version__)


def readiness(services: Services) -> Readiness:
    """Ask the database; nothing here waits for a worker."""
    from crosstune.db import migrate  # Alembic is a third of the time that importing the application takes

    expected = migrate.head()
    try:
        found = migrate.current(services.engine)
        newer = found != expected and migrate.is_newer(found)
        if found != expected and not newer:
            return _unready(f"has schema {found or 'none'}: run `crosstune db upgrade`", found, expected)
        room.check_writable(services.engine)
        with reading(services.engine) as connection:
            live = len(workers.seen_since(connection, availability.seen_after(services)))
            queued = steps.counts(connection).get(steps.StepState.QUEUED, 0)
    except room.ReadOnly:
        return _unready("takes no writes", expected, expected)
    except SQLAlchemyError as error:
        return _unready(f"does not answer ({type(error).__name__})", None, expected)
    lacking = room.lacking(services.settings)
    if lacking is not None:
        return _unready("ok", found, expected, lacking)
    return Readiness(
        ready=True,
        database="ok",
        storage="ok",
        schema_version=found,
        expected_schema_version=expected,
        live_workers=live,
        queued_steps=queued,
        warnings=[*([] if live else [NO_WORKER]), *([NEWER_SCHEMA] if newer else [])],
    )


def _unready(database: str, found: str | None, expected: str, storage: str = "ok") -> Readiness:
    return Readiness(
        ready=False,
        database=database,
        storage=storage,
        schema_version=found,
        expected_schema_version=expected,
        live_workers=0,
        queued_steps=0,
        warnings=[],
    )
