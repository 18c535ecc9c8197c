"""`crosstune serve`."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from crosstune.service.cli.connection import Connection
from crosstune.service.cli.options import JsonOption
from crosstune.service.cli.output import print_json_line, stdout_console

PARENT_POLL_S = 0.5


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Loopback address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the database and the artifacts.")] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Answer requests only; others do the work.")] = False,
    share_port: Annotated[
        bool, typer.Option("--share-port", help="Listen beside other processes of the same service.")
    ] = False,
    parent: Annotated[int | None, typer.Option(hidden=True, help="End when this process, our parent, does.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the service.

    The process holds the API, the event streams and, unless told otherwise, a worker for this machine.
    SQLite is created and upgraded on the way; an outdated PostgreSQL schema stops the start and names the command.
    Ctrl-C ends it; what was running goes on at the next start.
    """
    settings = Connection.of(context).settings(
        host=host,
        port=port,
        data_dir=data_dir,
        embedded_worker=False if no_worker else None,
        share_port=True if share_port else None,
    )
    from crosstune.service import logs, tracing
    from crosstune.service.serving import serve as run

    logs.configure(settings)
    tracing.configure(settings)

    def ready(url: str) -> None:
        if as_json:
            print_json_line({"url": url, "pid": os.getpid(), "data_dir": str(settings.data_dir)})
            return
        console = stdout_console()
        console.print(f"crosstune answers at [bold]{url}[/bold] (data in {settings.data_dir}); Ctrl-C ends it")

    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True, name="parent").start()
    try:
        run(settings, ready)
    finally:
        tracing.flush()


def _end_with(parent: int) -> None:
    """A service that was started for a program must not go on alone when that program was killed."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)


def register(application: typer.Typer) -> None:
    application.command()(serve)
