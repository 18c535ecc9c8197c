"""`crosstune audit`: do stored results hold."""

from __future__ import annotations

from typing import Annotated

import typer

from crosstune.service.cli.connection import Connection
from crosstune.service.cli.options import JsonOption
from crosstune.service.cli.output import busy, plain, print_json, print_table


def audit(
    context: typer.Context,
    count: Annotated[int, typer.Option(min=1, help="Best schedules to measure again.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice.")] = 0,
    record: Annotated[bool, typer.Option("--record", help="Add the new measurements to the records.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure stored bests again and compare.

    The best of each workload first, workloads drawn at random, in fresh processes on this machine; needs no service.
    """
    settings = Connection.of(context).settings()
    from crosstune.service.audit import run
    from crosstune.service.database import told

    with told(settings), busy("measuring"):
        report = plain(run(settings, count, seed, record))
    if as_json:
        print_json(report)
        return
    figures = [(name.replace("_", " "), value) for name, value in report.items() if not isinstance(value, list | dict)]
    print_table(None, ("", ""), figures)


def register(application: typer.Typer) -> None:
    application.command()(audit)
