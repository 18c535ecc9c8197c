"""`crosstune db`: the schema of the database that the settings name."""

from __future__ import annotations

import typer

from crosstune.service.cli.connection import Connection
from crosstune.service.cli.options import JsonOption
from crosstune.service.cli.output import note, print_json, stdout_console

group = typer.Typer(no_args_is_help=True, help="The database's schema; needs no running service.")


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


def _print_revision(found: str | None, wanted: str, as_json: bool) -> None:
    if as_json:
        print_json({"revision": found, "expected": wanted, "current": found == wanted})
        return
    stdout_console().print(f"revision {found or 'none'}, this version needs {wanted}", markup=False)


def register(application: typer.Typer) -> None:
    application.add_typer(group, name="db")
