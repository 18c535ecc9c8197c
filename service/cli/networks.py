"""`crosstune network`: what is tuned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosstune.service.cli.connection import connect
from crosstune.service.cli.options import JsonOption, LimitOption, ShapesOption, parse_shapes
from crosstune.service.cli.output import busy, flops, print_json, print_table, stdout_console

if TYPE_CHECKING:
    from crosstune.service.schemas.networks import NetworkOut, WorkloadArgument

group = typer.Typer(no_args_is_help=True, help="Networks: what is tuned.")
COLUMNS = ("name", "id", "state", "tasks", "layout", "size (MB)")
FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="An ONNX file.")]


@group.command()
def upload(
    context: typer.Context,
    file: FileArgument,
    name: Annotated[str | None, typer.Option(help="Else the file's name, where it is free.")] = None,
    shape: ShapesOption = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the import.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Upload an ONNX file and wait for its import, which finds its tasks or says why it cannot be used."""
    client = connect(context)
    shapes = parse_shapes(shape)
    with busy(f"importing {file.name}"):
        network = client.upload_network(file, name=name, shapes=shapes)
        if not no_wait:
            network = client.wait_network(network.id)
    _print_networks([network], as_json, network)


@group.command("list")
def list_networks(context: typer.Context, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the networks, newest first."""
    client = connect(context)
    networks = client.collect(client.list_networks, limit)
    _print_networks(networks, as_json, networks)


@group.command()
def show(
    context: typer.Context,
    network: Annotated[str, typer.Argument(help="Id or name.")],
    as_json: JsonOption = False,
) -> None:
    """Show a network and the tasks that it is cut into."""
    client = connect(context)
    found = client.get_network(network)
    tasks = client.get_network_tasks(network).tasks
    if as_json:
        print_json({**found.model_dump(mode="json"), "tasks": [task.model_dump(mode="json") for task in tasks]})
        return
    _print_networks([found], False, None)
    if found.layout_note:
        stdout_console().print(found.layout_note, markup=False)
    if tasks:
        rows = [(it.name, it.weight, flops(it.flops), _arguments(it.arguments)) for it in tasks]
        print_table(None, ("task", "weight", "work", "arguments"), rows, right=("weight", "work"))


def _arguments(arguments: list[WorkloadArgument]) -> str:
    return " ".join(f"{it.dtype}({'x'.join(str(size) for size in it.shape)})" for it in arguments)


def _print_networks(networks: list[NetworkOut], as_json: bool, answer: object) -> None:
    if as_json:
        print_json(answer)
        return
    rows = [
        (it.name, it.id, it.state.value, it.task_count or None, it.layout, f"{it.size_bytes / 1e6:.1f}")
        for it in networks
    ]
    empty = "no networks; `crosstune network upload` brings one"
    print_table(None, COLUMNS, rows, right=("tasks", "size (MB)"), empty=empty)
    for it in networks:
        if it.failure is not None:
            stdout_console().print(f"{it.name} was refused: {it.failure.detail}", markup=False)


def register(application: typer.Typer) -> None:
    application.add_typer(group, name="network")
