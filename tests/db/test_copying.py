"""All rows of a database come into another, of whatever kind, as of one moment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from crosstune.db import copying, migrate
from crosstune.db.engine import create_engine, reading, transaction
from crosstune.db.repositories import labels, projects, records, steps
from crosstune.db.tables import Base
from tests.conftest import throw_away_postgres


def fill(engine: Engine, make: Any) -> None:
    with transaction(engine) as connection:
        job = make.job(connection, ("conv", "pool"))
        make.round(connection, job, "conv")
        labels.replace(connection, "default", job.id, {"team": "vision"})
        records.store(
            connection,
            target_key=job.target_key,
            workload_key=make.workload(connection, "conv").key,
            project_key=projects.get(connection).key,
            candidates=[make.candidate(f"schedule {n}", make.full(1e-3 + n)) for n in range(2 * copying.CHUNK_ROWS)],
        )


def contents(engine: Engine) -> dict[str, list[Any]]:
    with reading(engine) as connection:
        return {
            table.name: connection.execute(select(table).order_by(*table.primary_key.columns)).all()
            for table in Base.metadata.sorted_tables
        }


@pytest.fixture(params=["sqlite", "postgresql"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        yield from opened(f"sqlite:///{tmp_path / 'copy.db'}")
    else:
        with throw_away_postgres() as url:
            yield from opened(url)


def opened(url: str) -> Iterator[Engine]:
    migrate.upgrade(url)
    engine = create_engine(url)
    yield engine
    engine.dispose()


def test_every_row_arrives_and_rows_that_come_later_get_keys_of_their_own(
    engine: Engine, destination: Engine, make: Any
) -> None:
    fill(engine, make)
    counts = copying.copy(engine, destination)
    assert contents(destination) == contents(engine)
    assert counts["records"] == 2 * copying.CHUNK_ROWS and counts["jobs"] == 1 and counts["labels"] == 1
    with transaction(destination) as connection:
        job = make.job(connection, ("softmax",))
        assert make.round(connection, job, "softmax") in {step.id for step in steps.of_job(connection, job.id)}


def test_a_database_that_holds_something_is_not_filled(engine: Engine, destination: Engine, make: Any) -> None:
    fill(engine, make)
    with transaction(destination) as connection:
        make.target(connection, "another")
    before = contents(destination)
    with pytest.raises(copying.NotEmpty, match="targets"):
        copying.copy(engine, destination)
    assert contents(destination) == before
