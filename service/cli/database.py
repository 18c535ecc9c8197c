"""`crosstune db`: the database that the settings name; its schema, backup and restore."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosstune.service.cli.connection import Connection
from crosstune.service.cli.options import JsonOption
from crosstune.service.cli.output import note, print_json, stdout_console

if TYPE_CHECKING:
    from crosstune.service.backups import Copied

group = typer.Typer(no_args_is_help=True, help="The database: schema, backup, restore; needs no running service.")


@group.command()
def upgrade(context: typer.Context, as_json: JsonOption = False) -> None:
    """Create the tables, or bring them to this version."""
    settings = Connection.of(context).settings()
    from crosstune.service import database

    revision = database.upgrade(settings)
    _print_revision(revision, revision, as_json)


@group.command()
def current(context: typer.Context, as_json: JsonOption = False) -> None:
    """Say which revision the tables have.

    Exit code 1 when it is not the one that this version needs.
    """
    settings = Connection.of(context).settings()
    from crosstune.service import database

    found, wanted = database.current(settings)
    _print_revision(found, wanted, as_json)
    if found != wanted:
        note("error: the schema is not this version's; `crosstune db upgrade` brings it there")
        raise typer.Exit(1)


@group.command()
def backup(
    context: typer.Context, folder: Annotated[Path, typer.Argument(metavar="FOLDER")], as_json: JsonOption = False
) -> None:
    """Copy the database, as of now, and the artifacts into a folder, while the service runs or not.

    Again into the same folder: the database anew, and the files that are new.
    """
    settings = Connection.of(context).settings()
    from crosstune.service import backups

    _print_copied(backups.backup(settings, folder), as_json)


@group.command()
def restore(
    context: typer.Context, folder: Annotated[Path, typer.Argument(metavar="FOLDER")], as_json: JsonOption = False
) -> None:
    """Fill an empty database and the artifacts' folder from a backup.

    A backup of SQLite can be restored into PostgreSQL, and the other way round.
    """
    settings = Connection.of(context).settings()
    from crosstune.service import backups

    _print_copied(backups.restore(settings, folder), as_json)


def _print_copied(copied: Copied, as_json: bool) -> None:
    if as_json:
        print_json(asdict(copied))
        return
    console = stdout_console()
    console.print(f"{copied.rows} rows, {copied.files} new files ({copied.size_bytes / 2**20:.1f} MiB)", markup=False)
    if copied.missing:
        note(f"warning: {copied.missing} files that the database names are gone")


def _print_revision(found: str | None, wanted: str, as_json: bool) -> None:
    if as_json:
        print_json({"revision": found, "expected": wanted, "current": found == wanted})
        return
    stdout_console().print(f"revision {found or 'none'}, this version needs {wanted}", markup=False)


def register(application: typer.Typer) -> None:
    application.add_typer(group, name="db")
