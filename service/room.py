"""Is there room to write? Asked before work is taken, so that a full disk stops it where nothing is lost."""

from __future__ import annotations

import shutil

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from crosstune.db.engine import is_postgresql, transaction
from crosstune.service.settings import Settings

LEAST_FREE_BYTES = 256 * 2**20
"""Of the artifacts' folder and of the data folder: a build and its scratch files fit into it."""


def lacking(settings: Settings) -> str | None:
    """What is wrong with the folders, in a sentence; None when there is room."""
    for folder in {settings.store_dir, settings.data_dir}:
        free = shutil.disk_usage(folder).free
        if free < LEAST_FREE_BYTES:
            return f"{folder} has {free / 2**20:.0f} MiB left of {LEAST_FREE_BYTES / 2**20:.0f} that work needs"
    return None


def check_writable(engine: Engine) -> None:
    """Raise ReadOnly where nothing can be written (a standby, a file without permission), or the database's error."""
    try:
        with transaction(engine) as connection:
            if not is_postgresql(connection):
                connection.exec_driver_sql("PRAGMA user_version = 0")  # SQLite finds out only when it is to write
            elif connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on":
                raise ReadOnly
    except OperationalError as error:
        if "readonly" in str(error):
            raise ReadOnly from error
        raise


class ReadOnly(Exception):
    """The database takes no writes."""
