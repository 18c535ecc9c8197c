"""`crosstune devices`: what measures."""

from __future__ import annotations

import typer

from crosstune.service.cli.connection import connect
from crosstune.service.cli.options import JsonOption, LimitOption
from crosstune.service.cli.output import print_json, print_table


def devices(context: typer.Context, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the devices that measure."""
    client = connect(context)
    found = client.collect(client.list_devices, limit)
    if as_json:
        print_json(found)
        return
    rows = [(it.name, it.id, it.kind, it.state.value, _yes(it.live), _yes(it.measuring), it.targets) for it in found]
    columns = ("name", "id", "kind", "state", "live", "measuring", "targets")
    print_table(None, columns, rows, empty="no devices; `crosstune target detect` registers this machine")


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def register(application: typer.Typer) -> None:
    application.command()(devices)
