"""`crosstune model`: train the attention cost model, and see how well it ranks beside its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from crosstune.service.cli.options import JsonOption
from crosstune.service.cli.output import note, print_json, print_table


class LossName(StrEnum):
    """cost_model.attention.losses.LOSSES, without importing torch for `--help`."""

    LAMBDA_RANK = "lambda_rank"
    PAIRWISE = "pairwise"


class SplitName(StrEnum):
    """What the tested groups have in common."""

    UNSEEN_WORKLOADS = "unseen-workloads"
    UNSEEN_TARGET = "unseen-target"
    UNSEEN_BOTH = "unseen-both"


group = typer.Typer(no_args_is_help=True, help="Cost models: training and evaluation; needs no running service.")
Dataset = Annotated[Path, typer.Option("--dataset", metavar="FOLDER", help="Folder of the data set.")]
Epochs = Annotated[int, typer.Option(min=1, help="Epochs at most; it stops when validation gets no better.")]
Loss = Annotated[LossName, typer.Option(help="Ranking loss.")]


@group.command()
def train(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the model and its card.")],
    epochs: Epochs = 30,
    loss: Loss = LossName.LAMBDA_RANK,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train on a data set; records of held-out networks are skipped."""
    _need("pyarrow", "torch", "safetensors")
    import torch

    from crosstune.cost_model.attention.model import AttentionModel
    from crosstune.cost_model.attention.training import Settings, train
    from crosstune.cost_model.attention.training_set import training_set
    from crosstune.cost_model.attention.weights import save
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.cost_model.dataset.loading import load_groups

    folder = DatasetFolder(dataset)
    groups = load_groups(folder)
    given = training_set(groups, seed, torch.get_num_threads())
    settings = Settings(seed=seed, epochs=epochs, loss=loss.value)
    trained = train(given.fitted, given.validation, settings, lambda row: note(_epoch_line(row)))
    card = {
        "settings": settings.to_json(),
        "data": {
            "fingerprint": folder.fingerprint(),
            "groups": len(given.fitted),
            "validation_groups": len(given.validation),
            "programs": sum(len(one.labels) for one in given.fitted),
            "held_out_groups": sum(one.held_out for one in groups),
        },
        "best_epoch": trained.best_epoch,
        "seconds": trained.seconds,
        "history": trained.history,
    }
    assert isinstance(trained.model, AttentionModel)
    save(out, trained.model, given.trees, card)
    if as_json:
        print_json(card)
    else:
        note(
            f"{out}: epoch {trained.best_epoch}, {trained.seconds:.0f} s, {trained.model.parameter_count:,} parameters"
        )


@group.command()
def evaluate(
    dataset: Dataset,
    model: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of a trained model; else the one of this package.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write report.md, report.json and plots there.")
    ] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Only records of the held-out networks.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Rank a data set's programs, target by target, beside copying, chance and the noise ceiling.

    Meant for data that the model was not trained on.
    """
    _need("pyarrow", *(["matplotlib"] if out is not None else []))
    from crosstune.cost_model.attention.scoring import Scorer
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.cost_model.dataset.loading import load_groups
    from crosstune.cost_model.model_evaluation import evaluated
    from crosstune.cost_model.pretrained import model_folder

    scorer = Scorer(model or model_folder(), threads=2)
    groups = [one for one in load_groups(DatasetFolder(dataset)) if one.held_out or not held_out]
    found = evaluated(scorer, groups)
    if out is not None:
        from crosstune.cost_model.model_report import write_report

        write_report(out, found)
        note(f"{out}: report.md, report.json and plots")
    _tell(found.rows, as_json)


@group.command()
def compare(
    dataset: Dataset,
    split: Annotated[SplitName, typer.Option(help="What the tested groups have in common.")],
    method: Annotated[list[str] | None, typer.Option(help="A method; again for more. None: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repeat with so many seeds.")] = 1,
    folds: Annotated[int, typer.Option(min=2, help="Folds of unseen workloads.")] = 4,
    epochs: Epochs = 30,
    loss: Loss = LossName.LAMBDA_RANK,
    as_json: JsonOption = False,
) -> None:
    """Train every method on the same groups and rank the same test groups.

    unseen-workloads: folds over workloads, nothing known of the tested ones. unseen-target: each target in turn, of
    which nothing is trained on, its workloads being known on other targets. unseen-both: of whose workloads nothing is
    trained on either, while other targets' measurements of them serve as evidence.
    """
    _need("pyarrow", "torch", "safetensors")
    from crosstune.cost_model import experiments
    from crosstune.cost_model.attention.training import Settings
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.cost_model.dataset.loading import load_groups
    from crosstune.cost_model.evaluation import GroupScore, noise_ceiling, summarise

    groups = [one for one in load_groups(DatasetFolder(dataset)) if not one.held_out]
    methods = method or list(experiments.METHODS)
    found: dict[str, list[GroupScore]] = {name: [] for name in methods}
    tested = []
    for seed in range(seeds):
        for task in _tasks(groups, split, folds, seed):
            settings = Settings(seed=seed, epochs=epochs, loss=loss.value)
            for name, scores in experiments.run(task, methods, settings, note).items():
                found[name] += scores
            tested += list(task.test)
    most = noise_ceiling(tested).get("top1", 1.0)
    _tell([asdict(summarise(name, found[name], tested, most)) for name in methods if found[name]], as_json)


def _tasks(groups: list[Any], split: SplitName, folds: int, seed: int) -> list[Any]:
    from crosstune.cost_model import experiments

    if split is SplitName.UNSEEN_WORKLOADS:
        return experiments.unseen_workloads(groups, folds, seed)
    seen = split is SplitName.UNSEEN_TARGET
    targets = sorted({one.target for one in groups})
    return [experiments.unseen_target(groups, target, seed, seen) for target in targets]


def _tell(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    with_target = bool(rows) and "target" in rows[0]
    columns = [*(["target"] if with_target else []), "method", "groups", "pool", "pairwise", "top-1", "top-5", "skill"]
    table = [
        (
            *([_short(row["target"])] if with_target else []),
            row["method"],
            str(row["groups"]),
            f"{row['median_pool']:g}",
            *(_interval(row["metrics"][name]) for name in ("pairwise", "top1", "top5")),
            None if row["skill_top1"] is None else f"{row['skill_top1']:.2f}",
        )
        for row in rows
    ]
    print_table(None, columns, table, right=columns[-6:], empty="no groups")


def _interval(value: dict[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f}-{value['high']:.3f})"


def _short(target: str) -> str:
    import json

    fields = json.loads(target)
    return " ".join(str(fields[name]) for name in ("kind", "mcpu", "arch", "cores") if fields.get(name))


def _epoch_line(row: dict[str, float]) -> str:
    top = f", validation top-1 {row['top1']:.3f}" if "top1" in row else ""
    return f"epoch {row['epoch']:.0f}: loss {row['loss']:.4f}{top}"


def _need(*names: str) -> None:
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        note(f"error: cost models need {', '.join(missing)}: pip install 'crosstune[training]'")
        raise typer.Exit(1)


def register(application: typer.Typer) -> None:
    application.add_typer(group, name="model")
