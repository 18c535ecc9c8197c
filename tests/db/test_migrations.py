"""The migrations make exactly the tables that the code uses, on both databases."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from crosstune.db import migrate
from crosstune.db.engine import create_engine, reading
from crosstune.db.errors import SchemaOutdated
from crosstune.db.repositories import projects
from crosstune.db.tables import Base


def test_the_migrations_make_exactly_the_tables_of_the_code(empty_url: str) -> None:
    assert migrate.upgrade(empty_url) == migrate.head()
    engine = create_engine(empty_url)
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        made = {
            (table, index["name"], index["unique"], str(_predicate(index)))
            for table in inspect(connection).get_table_names()
            for index in inspect(connection).get_indexes(table)
            if "duplicates_constraint" not in index
        }
    engine.dispose()
    partial = {name for _, name, _, predicate in made if predicate != "None"}
    assert partial == {
        "uq_networks_content",
        "uq_networks_name",
        "ix_records_best",
        "ix_records_default",
        "ix_steps_live",
        "uq_steps_live_round",
    }


def _predicate(index: object) -> object:
    options = index.get("dialect_options", {})  # type: ignore[attr-defined]
    return options.get("sqlite_where", options.get("postgresql_where"))


def test_a_database_without_tables_is_refused_with_the_command_that_helps(empty_url: str) -> None:
    engine = create_engine(empty_url)
    with pytest.raises(SchemaOutdated, match="crosstune db upgrade"):
        migrate.require_head(engine)
    migrate.upgrade(empty_url)
    migrate.require_head(engine)
    assert migrate.current(engine) == migrate.head()
    engine.dispose()


def test_a_database_that_a_newer_version_upgraded_is_refused_with_what_to_do_instead(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaOutdated, match="upgrade this one"):
        migrate.require_head(engine)
    engine.dispose()


def test_the_first_migration_brings_the_default_project(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    engine = create_engine(empty_url)
    with reading(engine) as connection:
        assert projects.get(connection).id == "default"
    engine.dispose()


def test_upgrading_twice_changes_nothing(empty_url: str) -> None:
    assert migrate.upgrade(empty_url) == migrate.upgrade(empty_url)


def test_many_processes_may_upgrade_at_once(empty_url: str) -> None:
    failures: list[BaseException] = []

    def upgrade() -> None:
        try:
            migrate.upgrade(empty_url)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must show it
            failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_many_may_open_a_new_sqlite_file_at_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def connect(url: str) -> None:
        engine = create_engine(url)
        try:
            engine.connect().close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must show it
            failures.append(error)
        finally:
            engine.dispose()

    for number in range(20):
        url = f"sqlite:///{tmp_path}/{number}.sqlite"
        threads = [threading.Thread(target=connect, args=(url,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_every_migration_can_be_taken_back(empty_url: str) -> None:
    from alembic import command

    migrate.upgrade(empty_url)
    engine = create_engine(empty_url)
    with engine.begin() as connection:
        config = migrate.config_for(connection)
        command.downgrade(config, "base")
    with reading(engine) as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    engine.dispose()
