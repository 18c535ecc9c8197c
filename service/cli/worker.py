"""`crosstune worker`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from crosstune.service.cli.connection import Connection
from crosstune.service.cli.options import JsonOption
from crosstune.service.cli.output import print_json_line, stdout_console


def worker(
    context: typer.Context,
    devices: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The device that this machine, or this part of it, is.  [default: its name]"),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for the worker's own files; each worker has its own.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Do the work of a service that runs elsewhere.

    The database (CROSSTUNE_DATABASE_URL) and the artifacts (CROSSTUNE_STORE_DIR) are the service's. The worker's device
    stands for the machine's own target and for every other that it can measure. A worker that may use some of a
    machine's cores only (taskset, cpuset) is a device of its own: give it a name. Ctrl-C ends it; what was running goes
    on elsewhere.
    """
    settings = Connection.of(context).settings(data_dir=data_dir)
    from crosstune.service import logs, tracing
    from crosstune.service.working import work

    logs.configure(settings)
    tracing.configure(settings)

    def ready(worker_id: str) -> None:
        if as_json:
            print_json_line({"worker": worker_id, "pid": os.getpid(), "data_dir": str(settings.data_dir)})
        else:
            stdout_console().print(f"worker [bold]{worker_id}[/bold] takes work; Ctrl-C ends it")

    try:
        work(settings, devices, ready)
    finally:
        tracing.flush()


def register(application: typer.Typer) -> None:
    application.command()(worker)
