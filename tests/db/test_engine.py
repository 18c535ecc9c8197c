"""Transactions that survive a busy, broken or restarted database, and leave nothing behind when they fail."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from crosstune.db import engine as engines
from crosstune.db.engine import create_engine, reading, retrying, transaction
from crosstune.db.repositories import labels, projects


def label(connection: Connection, value: str) -> None:
    labels.replace(connection, "default", "job_x", {"value": value})


def labelled(engine: Engine) -> str | None:
    with reading(engine) as connection:
        return labels.of(connection, "default", "job_x").get("value")


def test_a_block_that_raises_leaves_nothing(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), transaction(engine) as connection:
        label(connection, "lost")
        _ = 1 / 0
    assert labelled(engine) is None


def test_an_unknown_database_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="mysql"):
        create_engine("mysql://nobody@nowhere/x")


def test_a_row_that_refers_to_nothing_is_refused(engine: Engine) -> None:
    with pytest.raises(IntegrityError), transaction(engine) as connection:
        labels.replace(connection, "no such project", "job_x", {"a": "b"})


def test_work_is_repeated_after_a_connection_broke_in_its_middle(engine: Engine) -> None:
    attempts = []

    def work(connection: Connection) -> str:
        attempts.append(1)
        label(connection, f"attempt {len(attempts)}")
        if len(attempts) == 1:
            break_connection(connection)
        label(connection, f"attempt {len(attempts)}")
        return "done"

    assert retrying(engine, work) == "done"
    assert len(attempts) == 2 and labelled(engine) == "attempt 2"


def break_connection(connection: Connection) -> None:
    """End the session as a restart of the server would; SQLite has none, so its driver reports a lock instead."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    else:
        raise OperationalError("statement", {}, sqlite3.OperationalError("database is locked"))


def test_an_error_of_the_work_itself_is_not_repeated(engine: Engine) -> None:
    attempts = []

    def work(connection: Connection) -> None:
        attempts.append(1)
        connection.execute(text("SELECT no_such_column FROM projects"))

    with pytest.raises(DBAPIError):
        retrying(engine, work)
    assert len(attempts) == 1


def test_a_connection_whose_commit_failed_is_thrown_away(engine: Engine) -> None:
    class Broken(Exception):
        pass

    def fail(_connection: Connection) -> None:
        raise Broken

    event.listen(engine, "commit", fail)
    with pytest.raises(Broken), transaction(engine) as connection:
        label(connection, "lost")
    event.remove(engine, "commit", fail)
    assert labelled(engine) is None
    with transaction(engine) as connection:
        label(connection, "kept")
    assert labelled(engine) == "kept"


def test_connections_that_the_server_closed_are_noticed_before_use(engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no server")
    with transaction(engine) as first, transaction(engine) as second:
        ours = second.execute(text("SELECT pg_backend_pid()")).scalar_one()
        first.execute(text("SELECT 1"))
    other = create_engine(engine.url.render_as_string(hide_password=False))
    with transaction(other) as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid = :pid"),
            {"pid": ours},
        )
    other.dispose()
    for value in ("a", "b", "c"):
        with transaction(engine) as connection:
            label(connection, value)
    assert labelled(engine) == "c"


def test_two_transactions_that_wait_for_each_other_both_get_through(engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer, so nobody waits in a circle")
    gate = threading.Barrier(2, timeout=10)
    met: set[str] = set()

    def change(first: str, second: str) -> None:
        def work(connection: Connection) -> None:
            connection.execute(text("UPDATE labels SET value = value WHERE resource = :r"), {"r": first})
            if first not in met:
                met.add(first)
                gate.wait()
            connection.execute(text("UPDATE labels SET value = value || '+' WHERE resource = :r"), {"r": second})

        retrying(engine, work)

    with transaction(engine) as connection:
        for resource in ("job_a", "job_b"):
            labels.replace(connection, "default", resource, {"k": "v"})
    threads = [threading.Thread(target=change, args=pair) for pair in (("job_a", "job_b"), ("job_b", "job_a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as connection:
        assert [labels.of(connection, "default", one) for one in ("job_a", "job_b")] == [{"k": "v+"}, {"k": "v+"}]


def sqlite_engine(path: Path, database: bytes) -> Engine:
    path.write_bytes(database)
    return create_engine(f"sqlite:///{path}")


def test_a_writer_waits_for_another_and_a_reader_does_not(tmp_path: Path, migrated_sqlite: bytes) -> None:
    engine = sqlite_engine(tmp_path / "busy.db", migrated_sqlite)
    other = sqlite3.connect(tmp_path / "busy.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    assert labelled(engine) is None
    assert time.monotonic() - started < 1.0
    release = threading.Timer(0.5, lambda: other.execute("COMMIT"))
    release.start()
    with transaction(engine) as connection:
        label(connection, "after")
    assert time.monotonic() - started >= 0.4
    release.join()
    assert labelled(engine) == "after"
    engine.dispose()
    other.close()


def test_sqlite_is_opened_as_the_service_needs_it(tmp_path: Path, migrated_sqlite: bytes) -> None:
    engine = sqlite_engine(tmp_path / "plain.db", migrated_sqlite)
    with reading(engine) as connection:

        def pragma(name: str) -> Any:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

        assert (pragma("journal_mode"), pragma("foreign_keys"), pragma("busy_timeout")) == ("wal", 1, 30_000)
    engine.dispose()


def test_a_lock_that_never_goes_away_is_reported(
    tmp_path: Path, migrated_sqlite: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(engines, "RETRIES", 2)
    engine = sqlite_engine(tmp_path / "locked.db", migrated_sqlite)
    other = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"), transaction(engine):
        raise AssertionError("the lock was not noticed")
    other.execute("COMMIT")
    with transaction(engine) as connection:
        assert projects.get(connection).name == "default"
    engine.dispose()
    other.close()


def test_the_system_clock_gives_utc_seconds() -> None:
    assert abs(engines.SystemClock().now() - time.time()) < 1.0
