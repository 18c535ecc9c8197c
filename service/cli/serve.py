"""`crosstune serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from crosstune.service.cli.connection import Connection
from crosstune.service.cli.options import JsonOption
from crosstune.service.cli.output import print_json_line, stdout_console


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Loopback address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database and the artifacts.")] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Answer requests only; others do the work.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the service.

    The process holds the API, the event streams and, unless told otherwise, a worker for this machine.
    SQLite is created and upgraded on the way; an outdated PostgreSQL schema stops the start and names the command.
    Ctrl-C ends it; what was running goes on at the next start.
    """
    settings = Connection.of(context).settings(
        host=host, port=port, data_dir=data_dir, embedded_worker=False if no_worker else None
    )
    from crosstune.service.serving import serve as run

    def ready(url: str) -> None:
        if as_json:
            print_json_line({"url": url, "pid": os.getpid(), "data_dir": str(settings.data_dir)})
            return
        console = stdout_console()
        console.print(f"crosstune answers at [bold]{url}[/bold] (data in {settings.data_dir}); Ctrl-C ends it")

    run(settings, ready)


def register(application: typer.Typer) -> None:
    application.command()(serve)
