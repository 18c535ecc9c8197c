"""The command line's root: global options, command groups, and errors told in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crosstune.cost_model.errors import CostModelError
from crosstune.service.cli.connection import Connection
from crosstune.service.cli.options import JsonOption
from crosstune.service.cli.output import note, print_json
from crosstune.tuner.contracts import CrosstuneError


class Commands(TyperGroup):
    """Turns every error that crosstune raises on purpose into one sentence on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (CrosstuneError, CostModelError) as error:
            note(f"error: {error}")
            raise typer.Exit(1) from error
        except ValueError as error:
            raise typer.BadParameter(_told(error)) from error


def _told(error: ValueError) -> str:
    """What the user gave that the API's schemas do not take; any other ValueError is a defect and is raised."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        raise error
    faults = error.errors(include_url=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in it['loc'])}: {it['msg'].removeprefix('Value error, ')}" for it in faults
    )


application = typer.Typer(
    name="crosstune",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Makes neural networks run faster on given hardware and remembers what it learnt.\n\n"
    "Exit codes: 0 done, 1 refused or failed, 2 wrong usage.",
)


@application.callback()
def connection(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(envvar="CROSSTUNE_URL", help="Address of the service; else the one running on this machine."),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="CROSSTUNE_API_KEY", help="Key for a service that asks for one.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of a service on this machine; else CROSSTUNE_DATA_DIR or the usual one.")
    ] = None,
) -> None:
    context.obj = Connection(url, api_key, data_dir)


@application.command()
def version(as_json: JsonOption = False) -> None:
    """Print the version."""
    import crosstune

    if as_json:
        print_json({"version": crosstune.__version__})
    else:
        sys.stdout.write(f"{crosstune.__version__}\n")
