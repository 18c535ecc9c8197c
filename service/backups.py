"""Backup and restore: the database as one SQLite file, whatever it runs on, and the artifacts that it names.

A backup of a service on SQLite restores into PostgreSQL as well as the other way round. The database comes first: a row
is written after its file, so every file that the copy names is there, unless its network was deleted in between. A
second backup into the same folder copies only the files that are new.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, select

from crosstune.db import copying, migrate
from crosstune.db.engine import opened, reading
from crosstune.db.tables import Artifact
from crosstune.service import database
from crosstune.service.settings import Settings
from crosstune.service.store import Store
from crosstune.tuner.contracts import CrosstuneError

DATABASE = "crosstune.db"


class BackupRefused(CrosstuneError):
    """The folder holds no backup, or cannot take one; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Copied:
    """`missing`: artifacts that the database names and whose files are gone."""

    rows: int
    files: int
    size_bytes: int
    missing: int


def backup(settings: Settings, folder: Path) -> Copied:
    """Write a backup into `folder`, while the service runs or not.

    :raises DatabaseRefused: the database does not answer, or its tables are not this version's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f"{DATABASE}.part"
    _remove(scratch)
    url = f"sqlite:///{scratch}"
    with database.told(settings), opened(settings.database_url) as source:
        migrate.upgrade(url)
        with opened(url) as copy:
            rows = copying.copy(source, copy)
            uris = _uris(copy)
    scratch.replace(folder / DATABASE)
    return _files(rows, uris, Store(settings.store_dir), Store(folder))


def restore(settings: Settings, folder: Path) -> Copied:
    """Fill the empty database that the settings name, and the artifacts' folder; work that ran goes on once a worker
    starts.

    :raises BackupRefused: there is no backup in the folder.
    :raises DatabaseRefused: the database does not answer, or holds something.
    """
    kept = folder / DATABASE
    if not kept.is_file():
        raise BackupRefused(f"{folder} holds no backup: there is no {DATABASE} in it")
    database.make_data_dir(settings)
    with tempfile.TemporaryDirectory() as scratch:
        # An older version's backup is upgraded on the way, and stays as it is.
        copy = Path(scratch) / DATABASE
        shutil.copyfile(kept, copy)
        url = f"sqlite:///{copy}"
        with database.told(settings):
            migrate.upgrade(url)
            migrate.upgrade(settings.database_url)
            with opened(url) as source, opened(settings.database_url) as destination:
                rows = copying.copy(source, destination)
                uris = _uris(source)
    return _files(rows, uris, Store(folder), Store(settings.store_dir))


def _uris(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return sorted(set(connection.execute(select(Artifact.uri)).scalars()))


def _files(rows: dict[str, int], uris: list[str], source: Store, destination: Store) -> Copied:
    files = size_bytes = missing = 0
    for uri in uris:
        path, final = source.path(uri), destination.path(uri)
        if final.exists():
            continue
        if not path.exists():
            missing += 1
            continue
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch = final.with_suffix(".part")
        shutil.copyfile(path, scratch)
        scratch.replace(final)
        files += 1
        size_bytes += final.stat().st_size
    return Copied(sum(rows.values()), files, size_bytes, missing)


def _remove(path: Path) -> None:
    for each in (path, *path.parent.glob(f"{path.name}-*")):
        each.unlink(missing_ok=True)
