"""`crosstune dataset`: measured programs from logs and databases, as one columnar data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crosstune.cost_model.pruning.names import PruningMethod
from crosstune.service.cli.connection import Connection
from crosstune.service.cli.options import JsonOption, ShapesOption, parse_shapes
from crosstune.service.cli.output import note, print_json, print_json_line, print_table

if TYPE_CHECKING:
    from crosstune.cost_model.dataset.folder import DatasetFolder, FileReport
    from crosstune.cost_model.dataset.importing import Origin


group = typer.Typer(no_args_is_help=True, help="Measured programs as training data; needs no running service.")
SHOWN_FAULTS = 20

Folder = Annotated[Path, typer.Option("--dataset", metavar="FOLDER", help="Folder of the data set.")]


@group.command("import")
def import_(
    context: typer.Context,
    dataset: Folder,
    logs: Annotated[
        list[Path] | None,
        typer.Argument(help="Ansor logs, MetaSchedule databases, folders of them such as TenSet's, or data sets."),
    ] = None,
    records: Annotated[
        bool, typer.Option("--records", help="The records in the database that the settings name.")
    ] = False,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="The data set that comes with crosstune and its model was trained on.")
    ] = False,
    source: Annotated[str | None, typer.Option(help="Whose these are; else the name of each log.")] = None,
    device: Annotated[str, typer.Option(help="The measured hardware, where a target only says `llvm`.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Import logs, or other data sets, into a data set.

    What is not a record is counted, told with its line, and skipped. A file is imported once; a broken import goes on.
    """
    if not (logs or records or shipped):
        raise typer.BadParameter("give logs, --records or --shipped")
    _need_pyarrow()
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.cost_model.dataset.importing import Origin, import_dataset
    from crosstune.cost_model.pretrained import dataset_folder

    folder = DatasetFolder(dataset)
    reports = import_dataset(folder, DatasetFolder(dataset_folder())) if shipped else []
    for log in logs or []:
        if DatasetFolder(log).parts():
            reports += import_dataset(folder, DatasetFolder(log))
        else:
            reports += _import_logs(folder, log, Origin(source or log.name, device))
    if records:
        reports.append(_import_records(context, folder, Origin(source or "crosstune", device)))
    _tell(reports, as_json)


@group.command()
def collect(
    networks: Annotated[list[Path], typer.Argument(help="ONNX files whose workloads are measured.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the collection; one that is there goes on.")],
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="MCPU:CORES", help="A target that this machine can stand for; again for more."),
    ] = None,
    programs: Annotated[int, typer.Option(min=8, max=256, help="Programs of each workload on each target.")] = 128,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long; it can go on later.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws and of the order.")] = 0,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only workloads of the held-out networks, to test models on.")
    ] = False,
    shape: ShapesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure programs of real networks on this machine, as several targets.

    Run nothing else meanwhile, no service either. Without --target: this processor on all cores and on one, and the
    instruction sets below its own.
    """
    from crosstune.tuner.collecting import Progress
    from crosstune.tuner.collecting_here import collect_here

    def tell(progress: Progress) -> None:
        facts = {**asdict(progress), "target": f"{progress.target.mcpu}:{progress.target.cores}"}
        if as_json:
            print_json_line(facts)
        else:
            typer.echo("{total:>8,}  {target:16} {phase:8} {valid:>3} of {measured:<3} {workload}".format(**facts))

    collect_here(out, networks, target or [], programs, minutes, seed, held_out, parse_shapes(shape), tell, note)


@group.command()
def stats(
    dataset: Folder,
    vocabulary: Annotated[
        bool, typer.Option("--vocabulary", help="Also count schedule steps that the vocabulary does not know.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Count what a data set holds."""
    _need_pyarrow()
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.cost_model.dataset.statistics import count

    found = count(DatasetFolder(dataset), vocabulary)
    if as_json:
        print_json(found)
        return
    columns = ("source", "format", "target", "records", "failures", "workloads", "median each", "unknown steps")
    rows = [
        (
            it["source"],
            it["format"],
            it["device"] or _target_label(it["target"]),
            f"{it['records']:,}",
            f"{it['failures']:,}",
            f"{it['workloads']:,}",
            f"{it['records_per_workload']['median']:g}",
            None if it["other_steps_share"] is None else f"{it['other_steps_share']:.2%}",
        )
        for it in found["groups"]
    ]
    print_table(None, columns, rows, right=columns[3:], empty="no records")
    note(f"{found.get('records', 0):,} records from {found.get('files', 0):,} files, {found['size_bytes']:,} bytes")


@group.command()
def describe(
    dataset: Folder,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the described data set, new or empty.")],
    as_json: JsonOption = False,
) -> None:
    """Add statement features to records that have none, by replaying their schedules.

    For CPU programs of MetaSchedule whose workloads are in the data set; the others are carried over as they are.
    """
    _need_pyarrow()
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.tuner.child import Template
    from crosstune.tuner.describing import describe as describe_dataset

    whole = DatasetFolder(dataset)
    with _progress(whole.totals()["records"], unit="records") as advance, Template.start() as template:
        counts = describe_dataset(template, whole, DatasetFolder(out), advance)
    if as_json:
        print_json(counts)
        return
    print_table(None, ("", ""), [(name, f"{value:,}") for name, value in counts.items()])


@group.command()
def prune(
    dataset: Folder,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the smaller data set, new or empty.")],
    keep: Annotated[float, typer.Option(min=0.0001, max=1.0, help="Share of the valid, distinct records to keep.")],
    method: Annotated[PruningMethod, typer.Option(help="How to choose.")] = PruningMethod.TASK_DIVERSE,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write a smaller data set.

    Failures, exact duplicates and held-out networks go first. Prune training data only, never what a model is tested
    on.
    """
    _need_pyarrow()
    from crosstune.cost_model.dataset import pruning
    from crosstune.cost_model.dataset.folder import DatasetFolder
    from crosstune.cost_model.pruning.methods import METHODS

    whole = DatasetFolder(dataset)
    with _progress(whole.totals()["records"], unit="records") as advance:
        report = pruning.prune(whole, DatasetFolder(out), METHODS[method.value](keep), seed, advance)
    if as_json:
        print_json(report.to_json())
        return
    names = ("records", "failures", "duplicates", "held_out", "kept")
    rows = [(name.replace("_", " "), f"{getattr(report, name):,}") for name in names]
    print_table(None, ("", ""), rows)


def _import_logs(folder: DatasetFolder, log: Path, origin: Origin) -> list[FileReport]:
    from crosstune.cost_model.dataset.importing import import_files
    from crosstune.cost_model.formats.sources import record_files

    files = record_files([log])
    with _progress(sum(file.path.stat().st_size for file in files)) as advance:
        return import_files(folder, files, origin, advance)


def _import_records(context: typer.Context, folder: DatasetFolder, origin: Origin) -> FileReport:
    settings = Connection.of(context).settings()
    from crosstune.cost_model.dataset.importing import import_stream
    from crosstune.service.database import told
    from crosstune.service.training_records import stream

    with told(settings):
        return import_stream(folder, "database", stream(settings.database_url), origin)


def _tell(reports: list[FileReport], as_json: bool) -> None:
    if as_json:
        print_json({"files": [asdict(report) for report in reports]})
        return
    faults = [f"{report.file}, {example}" for report in reports for example in report.examples]
    for fault in faults[:SHOWN_FAULTS]:
        note(f"skipped: {fault}")
    figures: dict[str, Any] = {"files": len(reports)}
    for name in ("records", "failures", "faults"):
        figures[name] = sum(getattr(report, name) for report in reports)
    names = {"failures": "of them failures", "faults": "lines skipped"}
    print_table(None, ("", ""), [(names.get(name, name), f"{value:,}") for name, value in figures.items()])


def _target_label(text: str) -> str:
    target = json.loads(text)
    shown = [target.get(name) for name in ("kind", "model", "mcpu", "arch", "cores", "num-cores")]
    return " ".join(str(value) for value in shown if value)


def _need_pyarrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        note("error: data sets need pyarrow: pip install 'crosstune[training]'")
        raise typer.Exit(1)


@contextmanager
def _progress(total: int, unit: str = "bytes") -> Iterator[Callable[[int], None]]:
    """A bar on stderr where there is somebody to see it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(file=sys.stderr)
    done = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    with Progress(BarColumn(), done, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda amount: bar.advance(task, amount)


def register(application: typer.Typer) -> None:
    application.add_typer(group, name="dataset")
