"""What is kept for how long. Networks, records and the best schedules are kept until somebody deletes them.

Answers to idempotency keys go after a day. The settings say when events go, and whether old builds' artifacts and
failed attempts do: the newest build of each network and target stays whatever its age, and a record keeps its verdict,
so that what failed for good is not tried again.
"""

from __future__ import annotations

import time

from sqlalchemy import Connection, Engine

from crosstune.db.engine import retrying
from crosstune.db.repositories import artifacts, builds, events, idempotency, records
from crosstune.service.settings import Settings
from crosstune.service.store import Store

DAY_S = 24 * 3600.0
AT_ONCE = 100
"""Builds whose artifacts go in one transaction."""


def tidy(engine: Engine, store: Store, settings: Settings) -> None:
    """Forget what has been kept as long as was promised; again and again, by whichever worker comes first."""
    now = time.time()

    def rows(connection: Connection) -> None:
        idempotency.prune(connection)
        events.prune(connection, now - DAY_S * settings.keep_events_days)
        if settings.keep_failed_days is not None:
            records.prune_failed(connection, now - DAY_S * settings.keep_failed_days)

    retrying(engine, rows)
    if settings.keep_builds_days is not None:
        _artifacts_of_old_builds(engine, store, now - DAY_S * settings.keep_builds_days)


def _artifacts_of_old_builds(engine: Engine, store: Store, before: float) -> None:
    with store.locked():
        for uri in retrying(engine, lambda connection: _let_go(connection, before)):
            store.delete(uri)


def _let_go(connection: Connection, before: float) -> list[str]:
    """Where bytes lie that nothing names any longer."""
    found = []
    for build in builds.outlived(connection, before, AT_ONCE):
        assert build.artifact_id is not None, "only builds with artifacts outlive them"
        uri = artifacts.get(connection, build.artifact_id).uri
        builds.forget_artifact(connection, build.id)
        if artifacts.remove(connection, build.artifact_id):
            found.append(uri)
    return found
