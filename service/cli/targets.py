"""`crosstune target`: what networks are tuned for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crosstune.service.cli.connection import connect
from crosstune.service.cli.options import JsonOption, LabelsOption, LimitOption, parse_labels
from crosstune.service.cli.output import print_json, print_table, stdout_console

if TYPE_CHECKING:
    from crosstune.service.schemas.targets import TargetOut

group = typer.Typer(no_args_is_help=True, help="Targets: what a compiler must know of the hardware.")
NameOption = Annotated[str | None, typer.Option(help="Made from the description when left out.")]
MattrOption = Annotated[
    list[str] | None, typer.Option("--mattr", metavar="+NAME|-NAME", help="Instruction-set feature; may be repeated.")
]
COLUMNS = ("name", "id", "mcpu", "cores", "model", "devices")


@group.command()
def detect(
    context: typer.Context,
    name: NameOption = None,
    cores: Annotated[
        int | None, typer.Option(min=1, help="Cores that networks will use; else all usable ones.")
    ] = None,
    mcpu: Annotated[str | None, typer.Option(help="LLVM's processor name instead of the detected one.")] = None,
    mattr: MattrOption = None,
    label: LabelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the machine that the service runs on; other values make further targets on the same machine."""
    from crosstune.service.schemas.targets import DetectIn

    body = DetectIn(
        name=name, cores=cores, mcpu=mcpu, mattr=tuple(mattr) if mattr else None, labels=parse_labels(label)
    )
    _print_target(connect(context).detect_target(body), as_json)


@group.command("list")
def list_targets(context: typer.Context, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the registered targets."""
    client = connect(context)
    targets = client.collect(client.list_targets, limit)
    if as_json:
        print_json(targets)
        return
    print_table(None, COLUMNS, map(_row, targets), empty="no targets; `crosstune target detect` registers this machine")


@group.command()
def calibrate(context: typer.Context, target: str, as_json: JsonOption = False) -> None:
    """Measure speed, bandwidth and loop overhead of the target's device soon; `target show` then tells them."""
    step = connect(context).calibrate_target(target)
    if as_json:
        print_json(step)
        return
    stdout_console().print(f"{step.step}: {target} is calibrated as soon as its device is free")


@group.command()
def explore(
    context: typer.Context,
    target: str,
    trials: Annotated[int, typer.Option(min=1, help="Programs to measure, in all.")] = 256,
    as_json: JsonOption = False,
) -> None:
    """Measure what teaches most about the target, of what other targets know, while no job wants its device."""
    from crosstune.service.schemas.targets import ExploreIn

    step = connect(context).explore_target(target, ExploreIn(trials=trials))
    if as_json:
        print_json(step)
        return
    stdout_console().print(f"{step.step}: {trials} programs are measured on {target} while its device is free")


@group.command()
def show(context: typer.Context, target: str, as_json: JsonOption = False) -> None:
    """Show a target and its hardware attributes with their origins."""
    _print_target(connect(context).get_target(target), as_json)


@group.command()
def add(
    context: typer.Context,
    mcpu: Annotated[str, typer.Option(help="LLVM's processor name, such as znver4 or skylake-avx512.")],
    cores: Annotated[int, typer.Option(min=1, help="Cores, and so threads, that networks will use.")],
    model: Annotated[str, typer.Option(help="Processor model, such as 'AMD EPYC 9R14'.")],
    mattr: MattrOption = None,
    triple: Annotated[str, typer.Option(help="LLVM triple without vendor; else the service's own.")] = "",
    name: NameOption = None,
    device: Annotated[str | None, typer.Option(help="A device that can measure for this target.")] = None,
    label: LabelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe a target by hand."""
    from crosstune.service.schemas.targets import TargetIn

    body = TargetIn(
        kind="llvm",
        mcpu=mcpu,
        cores=cores,
        model=model,
        mattr=tuple(mattr or ()),
        triple=triple,
        name=name,
        device=device,
        labels=parse_labels(label),
    )
    _print_target(connect(context).create_target(body), as_json)


def _print_target(target: TargetOut, as_json: bool) -> None:
    if as_json:
        print_json(target)
        return
    print_table(None, COLUMNS, [_row(target)])
    facts = [(fact, value.value, value.origin) for fact, value in sorted(target.attributes.items())]
    if facts:
        stdout_console().print()
        print_table(None, ("attribute", "value", "origin"), facts)


def _row(target: TargetOut) -> tuple[object, ...]:
    return target.name, target.id, target.mcpu, target.cores, target.model, target.devices


def register(application: typer.Typer) -> None:
    application.add_typer(group, name="target")
