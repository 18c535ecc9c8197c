"""Both databases, as users have them: migrated, and on PostgreSQL owned by a role without privileges."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import OperationalError

from crosstune.db import migrate
from crosstune.db.engine import create_engine
from crosstune.db.repositories import jobs, networks, records, steps, targets, workloads
from crosstune.db.repositories.jobs import JobRow
from crosstune.db.repositories.networks import NetworkRow
from crosstune.db.repositories.targets import TargetRow
from crosstune.db.repositories.workloads import WorkloadRow
from crosstune.db.tables import Base

POSTGRES_URL = os.environ.get("CROSSTUNE_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
"""Of a role that may make roles and databases; the tests themselves use neither."""


def _administration() -> Engine:
    url = make_url(POSTGRES_URL).set(drivername="postgresql+psycopg")
    return sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})


@contextmanager
def throw_away_postgres() -> Iterator[str]:
    """The URL of a new, empty database that belongs to a new role without any privilege; skips without a server."""
    engine = _administration()
    try:
        connection = engine.connect()
    except OperationalError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"PostgreSQL is required when CI=true, and none answers: {error}")
        pytest.skip(f"no PostgreSQL answers at {POSTGRES_URL} (set CROSSTUNE_TEST_POSTGRES_URL)")
    name = f"crosstune_test_{secrets.token_hex(6)}"
    password = secrets.token_hex(16)
    with connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' NOSUPERUSER NOCREATEDB NOCREATEROLE"))
        connection.execute(text(f"CREATE DATABASE {name} OWNER {name}"))
        try:
            unprivileged = make_url(POSTGRES_URL).set(username=name, password=password, database=name)
            yield unprivileged.render_as_string(hide_password=False)
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


@pytest.fixture(scope="session")
def migrated_postgres() -> Iterator[str]:
    """One migrated PostgreSQL database for the session; its rows are emptied between tests."""
    with throw_away_postgres() as url:
        migrate.upgrade(url)
        yield url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a migrated SQLite file."""
    path = tmp_path_factory.mktemp("migrated") / "template.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database that holds nothing but the default project."""
    if request.param == "sqlite":
        path = tmp_path / "crosstune.db"
        path.write_bytes(request.getfixturevalue("migrated_sqlite"))
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("migrated_postgres")
    empty(url)
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        with throw_away_postgres() as url:
            yield url


def empty(url: str) -> None:
    """Forget all rows but the default project."""
    engine = create_engine(url)
    names = ", ".join(table.name for table in Base.metadata.sorted_tables if table.name != "projects")
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"TRUNCATE {names}"))
        else:
            for table in reversed(Base.metadata.sorted_tables):
                if table.name != "projects":
                    connection.execute(table.delete())
        connection.execute(text("DELETE FROM projects WHERE id <> 'default'"))
    engine.dispose()


def sha(*parts: object) -> str:
    """A sha256 (hexadecimal) made from anything."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Make:
    """Short ways to the rows that tests need; every name stands for the same row each time."""

    sha = staticmethod(sha)

    def target(self, connection: Connection, name: str = "here") -> TargetRow:
        return targets.register(connection, identity=sha("target", name), name=name, spec={"mcpu": name})[0]

    def workload(
        self,
        connection: Connection,
        graph: str = "conv",
        tvm_version: str = "0.27",
        name: str | None = None,
        sizes: Sequence[int] = (1, 8),
    ) -> WorkloadRow:
        return workloads.get_or_create(
            connection,
            sha256=sha("workload", graph, tvm_version),
            version_free_key=sha("graph", graph),
            name=name or graph,
            module=f'{{"module": "{graph}"}}',
            flops=1e6,
            args=[["float32", list(sizes)]],
            output_count=1,
            tvm_version=tvm_version,
            pipeline_version=1,
        )

    def network(self, connection: Connection, name: str = "net", graphs: Sequence[str] = ("conv",)) -> NetworkRow:
        network, new = networks.submit(
            connection,
            project_id="default",
            name=name,
            content_sha256=sha("network", name),
            shapes={},
            size_bytes=10,
            artifact_id=None,
        )
        if not new:
            return network
        return networks.mark_ready(
            connection,
            network.id,
            graph_key=sha("graph of", name),
            inputs=[["data", "float32", [1, 8]]],
            outputs=[["out", "float32", [1, 8]]],
            layout="NHWC",
            layout_note="all convolutions",
            synthetic_weights=False,
            pipeline_version=1,
            tasks=[(self.workload(connection, graph).key, 2) for graph in graphs],
        )

    def job(self, connection: Connection, graphs: Sequence[str] = ("conv",), now: float | None = None) -> JobRow:
        return jobs.create(
            connection,
            project_id="default",
            network_id=self.network(connection, "net of " + " ".join(graphs), graphs).id,
            target_key=self.target(connection).key,
            budget_trials=1000,
            budget_s=None,
            now=now,
        )

    def round(self, connection: Connection, job: JobRow, graph: str = "conv", **more: Any) -> str:
        """A queued round of one of the job's workloads; returns its id."""
        return steps.enqueue(
            connection,
            kind="round",
            queue=f"hw.{job.target_id}",
            project_id="default",
            job_id=job.id,
            target_key=job.target_key,
            workload_key=self.workload(connection, graph).key,
            input={"trials": 16},
            **more,
        )

    def candidate(self, name: str, *measurements: records.NewMeasurement, **more: Any) -> records.NewCandidate:
        return records.NewCandidate(sha("schedule", name), [["trace"], [name]], measurements, **more)

    def full(self, latency_s: float, **more: Any) -> records.NewMeasurement:
        return records.NewMeasurement((latency_s,) * 3, "full", **more)

    def quick(self, latency_s: float, **more: Any) -> records.NewMeasurement:
        return records.NewMeasurement((latency_s,), "quick", **more)

    def failure(self, invalidity: str, **more: Any) -> records.NewMeasurement:
        return records.NewMeasurement((), "quick", invalidity=invalidity, **more)


@pytest.fixture
def make() -> Make:
    return Make()
