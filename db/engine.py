"""Connections to SQLite (one machine) and PostgreSQL (many), and the two ways to run a transaction.

SQLite: WAL, foreign keys checked, and every writing transaction starts with BEGIN IMMEDIATE, so it never finds out in
its middle that another writer was faster. PostgreSQL: READ COMMITTED, dead connections are noticed before use.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import sqlalchemy
from sqlalchemy import ColumnElement, Connection, Double, Engine, cast, event, extract, func, literal
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

Result = TypeVar("Result")

BUSY_TIMEOUT_S = 30.0
"""How long a writer waits for another on SQLite."""
CONNECT_TIMEOUT_S = 10
POOL_SIZE = 20
"""Connections of a process; they are opened when they are needed. With 10 and twice as many that came and went, a
process took half as many submits per second."""
RETRIES = 8
"""Attempts of `retrying` before the last error is raised: about 10 s in all."""
_READ_ONLY = "crosstune_read_only"
_SERIALIZATION_FAILURE, _DEADLOCK_DETECTED = "40001", "40P01"


class Clock(Protocol):
    """Gives UTC seconds since the epoch; tests inject one that they move by hand."""

    def now(self) -> float: ...


class SystemClock:
    def now(self) -> float:
        return time.time()


def create_engine(url: str, pool_size: int = POOL_SIZE) -> Engine:
    """An engine for `sqlite:///path` or `postgresql://…`; nothing is opened and no table is made yet. Threads beyond
    `pool_size` wait for a connection on PostgreSQL."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed, pool_size)
    if parsed.get_backend_name() == "postgresql":
        return _postgresql_engine(parsed, pool_size)
    raise ValueError(
        f"{parsed.get_backend_name()!r} is not supported: use sqlite:///path or postgresql://user@host/name"
    )


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """An engine for as long as the block lasts."""
    engine = create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _sqlite_engine(url: URL, pool_size: int) -> Engine:
    engine = sqlalchemy.create_engine(
        url, pool_size=pool_size, max_overflow=2 * pool_size, connect_args={"timeout": BUSY_TIMEOUT_S}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver would otherwise begin transactions by itself, and too late.
        connection.isolation_level = None
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log: SQLite refuses this at once, without its time-out, while another one switches."""
    for attempt in range(1, RETRIES + 1):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if attempt == RETRIES or not _locked(error):
                raise
        _back_off(attempt)


def _postgresql_engine(url: URL, pool_size: int) -> Engine:
    return sqlalchemy.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,  # what overflows is closed again, and opening costs PostgreSQL a process
        pool_pre_ping=True,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "crosstune", "keepalives_idle": 30},
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A writing transaction: committed at the end of the block, rolled back when it raises.

    A block cannot be repeated, so only its beginning is retried; `retrying` repeats the whole.
    """
    connection = _begin(engine)
    try:
        yield connection
        _commit(connection)
    finally:
        connection.close()  # rolls back what was not committed


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: on SQLite it neither waits for writers nor stops them."""
    with engine.connect().execution_options(**{_READ_ONLY: True}) as connection, connection.begin():
        yield connection


def retrying(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Run `work` in a writing transaction, again from the start when the database asks for it.

    Repeated after: a serialization failure or deadlock (PostgreSQL), a locked database (SQLite), and a connection that
    broke before COMMIT was sent. A connection that breaks during COMMIT is not repeated: nobody knows whether it took
    effect. `work` must therefore do nothing but use the connection.
    """
    for attempt in range(1, RETRIES + 1):
        committing = False
        connection: Connection | None = None
        try:
            connection = _begin(engine)
            result = work(connection)
            committing = True
            _commit(connection)
            return result
        except DBAPIError as error:
            if attempt == RETRIES or not _repeatable(error, committing):
                raise
        finally:
            if connection is not None:
                connection.close()
        _back_off(attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _begin(engine: Engine) -> Connection:
    """A connection in a transaction that has really begun: SQLite's lock is taken, PostgreSQL answered."""
    for attempt in range(1, RETRIES + 1):
        connection: Connection | None = None
        try:
            connection = engine.connect()
            connection.begin()
            return connection
        except BaseException as error:
            if connection is not None:
                connection.close()
            if attempt == RETRIES or not (isinstance(error, DBAPIError) and _repeatable(error, committing=False)):
                raise
        _back_off(attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _commit(connection: Connection) -> None:
    """COMMIT; when it fails, throw the connection away: SQLAlchemy would put it back into its pool still in the
    transaction, and SQLite may have kept its lock."""
    try:
        connection.commit()
    except BaseException:
        connection.invalidate()
        raise


def _back_off(attempt: int) -> None:
    time.sleep(random.uniform(0.5, 1.0) * min(0.02 * 2**attempt, 2.0))


def _repeatable(error: DBAPIError, committing: bool) -> bool:
    if getattr(error.orig, "sqlstate", None) in {_SERIALIZATION_FAILURE, _DEADLOCK_DETECTED}:
        return True
    if _locked(error.orig):
        return True
    return error.connection_invalidated and not committing


def _locked(error: BaseException | None) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def moment(connection: Connection, now: float | None) -> ColumnElement[float]:
    """The time that leases are compared with: `now` when a clock is injected, else the database's own.

    PostgreSQL is asked for `clock_timestamp()`, because the clocks of many workers differ; SQLite has one machine.
    """
    if now is not None:
        return literal(now, Double)
    if is_postgresql(connection):
        return cast(extract("epoch", func.clock_timestamp()), Double)
    return literal(time.time(), Double)


def stamp(now: float | None) -> float:
    """A time that is only shown, never compared with a lease."""
    return time.time() if now is None else now
