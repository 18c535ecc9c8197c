"""Backup and restore of a service: rows and files, from either kind of database into either."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from crosstune.db.engine import create_engine, reading, transaction
from crosstune.db.repositories import artifacts, targets
from crosstune.service import backups
from crosstune.service.artifact_rows import add_artifact
from crosstune.service.cli import application
from crosstune.service.settings import Settings
from crosstune.service.store import Store


def settings_of(folder: Path, url: str = "") -> Settings:
    return Settings(data_dir=folder, database_url=url)


def with_file(engine: Engine, store: Store, folder: Path, content: bytes) -> str:
    source = folder / "upload"
    source.write_bytes(content)
    stored = store.put_file("default", "network", source)
    with transaction(engine) as connection:
        artifact_id = add_artifact(connection, "default", "network", stored)
        targets.register(connection, identity="ab" * 32, name="board", spec={"mcpu": "x"})
        return artifacts.get(connection, artifact_id).uri


def test_what_was_backed_up_is_there_again_in_another_service(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "old", database_url)
    uri = with_file(engine, Store(settings.store_dir), tmp_path, b"a network")
    gone = with_file(engine, Store(settings.store_dir), tmp_path, b"another one")
    Store(settings.store_dir).delete(gone)
    first = backups.backup(settings, tmp_path / "backup")
    assert (first.files, first.size_bytes, first.missing) == (1, len(b"a network"), 1)
    assert backups.backup(settings, tmp_path / "backup").files == 0, "files that are there are not copied again"

    new = settings_of(tmp_path / "new")
    assert backups.restore(new, tmp_path / "backup").files == 1
    assert Store(new.store_dir).path(uri).read_bytes() == b"a network"
    restored = create_engine(new.database_url)
    with reading(restored) as connection:
        assert targets.get(connection, "board").spec == {"mcpu": "x"}
    restored.dispose()


def test_a_folder_without_a_backup_and_a_database_with_rows_are_refused(
    engine: Engine, database_url: str, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "old", database_url)
    with pytest.raises(backups.BackupRefused, match="no backup"):
        backups.restore(settings_of(tmp_path / "new"), tmp_path / "nothing")
    with_file(engine, Store(settings.store_dir), tmp_path, b"a network")
    backups.backup(settings, tmp_path / "backup")
    with pytest.raises(Exception, match="empty database"):
        backups.restore(settings, tmp_path / "backup")


def test_the_command_line_backs_up_and_restores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()

    def run(data: str, *arguments: str) -> dict[str, int]:
        monkeypatch.setenv("CROSSTUNE_DATA_DIR", str(tmp_path / data))
        done = runner.invoke(application, ["db", *arguments, "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, int] = json.loads(done.stdout)
        return found

    run("old", "upgrade")
    rows = run("old", "backup", str(tmp_path / "backup"))["rows"]
    assert rows >= 1 and run("new", "restore", str(tmp_path / "backup"))["rows"] == rows
