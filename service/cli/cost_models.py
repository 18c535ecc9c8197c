"""`crosstune cost-model`: the versions that a service ranks candidates with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosstune.service.cli.connection import connect
from crosstune.service.cli.options import JsonOption, LabelsOption, LimitOption, parse_labels
from crosstune.service.cli.output import note, print_json, print_table, stdout_console

if TYPE_CHECKING:
    from crosstune.service.schemas.cost_models import Accuracy, Between, CostModelOut

group = typer.Typer(no_args_is_help=True, help="Versions of the service's cost model: retrain, compare, promote.")
VersionArgument = Annotated[str, typer.Argument(help="Id of a version, or `shipped`.")]
COLUMNS = ("version", "id", "kind", "state", "parent")


@group.command("list")
def list_versions(context: typer.Context, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List the versions, newest first."""
    client = connect(context)
    found = client.collect(client.list_cost_models, limit)
    if as_json:
        print_json(found)
        return
    rows = [(str(it.version), it.id, it.kind.value, it.state, it.parent) for it in found]
    print_table(None, COLUMNS, rows, empty="no versions")


@group.command()
def show(context: typer.Context, version: VersionArgument, as_json: JsonOption = False) -> None:
    """Show what a version learnt from, how well it ranks, and how its training goes."""
    found = connect(context).get_cost_model(version)
    if as_json:
        print_json(found)
        return
    _say(found)
    if found.quality is not None:
        rows = [(name, _interval(one)) for name, one in found.quality.metrics.items()]
        rows += [(f"top1 on {target}", _interval(one)) for target, one in found.quality.by_target.items()]
        print_table(f"on {found.quality.groups} workloads that none learns from", ("metric", "value"), rows, empty="")
    for line in found.progress[-5:]:
        note(", ".join(f"{name} {value}" for name, value in line.items() if name != "at"))


@group.command()
def retrain(
    context: typer.Context,
    target: Annotated[list[str] | None, typer.Option(help="Records of this target; again for more.")] = None,
    operator: Annotated[list[str] | None, typer.Option(help="Workloads with this in their name, as conv2d.")] = None,
    label: LabelsOption = None,
    base: Annotated[str | None, typer.Option(help="Begin with this version's network; else from scratch.")] = None,
    xgboost: Annotated[bool, typer.Option("--xgboost", help="Trees alone, which need no torch.")] = False,
    keep: Annotated[float, typer.Option(min=0.001, max=1.0, help="Share of the records that training sees.")] = 0.8,
    seconds: Annotated[float, typer.Option(min=1.0, help="No epoch begins after so long.")] = 900.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a new version from what was measured; `show` tells how it goes, `promote` puts it into use."""
    from crosstune.service.schemas.cost_models import CostModelKind, Pruning, RetrainBudget, RetrainIn

    body = RetrainIn(
        kind=CostModelKind.XGBOOST if xgboost else CostModelKind.ATTENTION,
        targets=tuple(target or ()),
        operators=tuple(operator or ()),
        labels=parse_labels(label),
        base=base,
        pruning=Pruning(keep=keep),
        budget=RetrainBudget(seconds=seconds),
        seed=seed,
    )
    _print(connect(context).retrain_cost_model(body), as_json)


@group.command()
def cancel(context: typer.Context, version: VersionArgument, as_json: JsonOption = False) -> None:
    """Stop a training."""
    _print(connect(context).cancel_retraining(version), as_json)


@group.command()
def compare(
    context: typer.Context, first: VersionArgument, second: VersionArgument = "shipped", as_json: JsonOption = False
) -> None:
    """Compare two versions on the programs that both were judged by."""
    found = connect(context).compare_cost_models(first, second)
    if as_json:
        print_json(found)
        return
    rows = [(name, _interval(one)) for name, one in found.overall.items()]
    rows += [(f"top1 on {target}", _interval(one)) for target, one in found.by_target.items()]
    print_table(f"{first} minus {second}, {found.groups} workloads", ("metric", "difference"), rows, empty="")
    note(
        "it may replace the other" if found.may_replace else f"it may not replace the other: {'; '.join(found.reasons)}"
    )


@group.command()
def judge(
    context: typer.Context,
    versions: Annotated[
        list[str], typer.Argument(metavar="VERSION...", help="Ids; the champion and `shipped` come besides.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Judge versions on the same programs, old ones too; then any two of them compare."""
    from crosstune.service.schemas.cost_models import JudgeIn

    accepted = connect(context).judge_cost_models(JudgeIn(versions=tuple(versions)))
    if as_json:
        print_json(accepted)
    else:
        note(f"{accepted.step} judges {', '.join(accepted.versions)}; then: crosstune cost-model compare FIRST SECOND")


@group.command()
def promote(context: typer.Context, version: VersionArgument, as_json: JsonOption = False) -> None:
    """Use a version from now on, if it passes its gates."""
    _print(connect(context).promote_cost_model(version), as_json)


@group.command()
def drift(
    context: typer.Context,
    target: Annotated[str | None, typer.Option(help="Id or name of a target; else all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how the newest measured batches compare with the order that the model had put them in."""
    found = connect(context).get_drift(target=target)
    if as_json:
        print_json(found)
        return
    rows = [
        (it.target, it.operator or "all", str(it.checks), f"{it.pairwise:.3f}", f"{it.regret_top1:.3f}", _drifts(it))
        for it in found.entries
    ]
    columns = ("target", "operator", "batches", "pairwise", "regret", "")
    print_table(None, columns, rows, right=columns[2:5], empty="nothing was measured that a model had ranked")


def _drifts(one: Accuracy) -> str:
    return "drifting" if one.drifting else ""


@group.command("roll-back")
def roll_back(context: typer.Context, as_json: JsonOption = False) -> None:
    """Return to the version that the one in use replaced."""
    _print(connect(context).roll_back_cost_model(), as_json)


@group.command()
def download(
    context: typer.Context,
    version: VersionArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the archive.")],
    training_set: Annotated[
        bool, typer.Option("--training-set", help="The data set that it learnt from, for `crosstune dataset import`.")
    ] = False,
) -> None:
    """Write a version's files, or its training set, as a .tar."""
    client = connect(context)
    sha256 = (client.get_training_set if training_set else client.get_cost_model_files)(version, out)
    note(f"{out}: sha256 {sha256}")


def _print(found: CostModelOut, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        _say(found)


def _say(found: CostModelOut) -> None:
    reason = f": {found.failure}" if found.failure else ""
    stdout_console().print(f"{found.id}: version {found.version}, {found.kind.value}, {found.state}{reason}")


def _interval(one: Between) -> str:
    return f"{one.mean:+.3f} ({one.low:+.3f} to {one.high:+.3f})"


def register(application: typer.Typer) -> None:
    application.add_typer(group, name="cost-model")
