"""`crosstune best`, `build`, `records` and `export`: what tuning found."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosstune.service.cli.connection import connect
from crosstune.service.cli.options import JsonOption, LimitOption
from crosstune.service.cli.output import (
    busy,
    duration,
    expected,
    flops,
    note,
    print_json,
    print_table,
    speedup,
    stdout_console,
    throughput,
)

if TYPE_CHECKING:
    from crosstune.service.client import Client
    from crosstune.service.schemas.builds import BuildOut


class Format(StrEnum):
    NDJSON = "ndjson"


TargetFilter = Annotated[str | None, typer.Option("--target", help="Id or name of a target.")]
WorkloadFilter = Annotated[str | None, typer.Option("--workload", help="Identity of a workload (sha256).")]
FailedFilter = Annotated[bool | None, typer.Option("--failed/--valid", help="Only failures, or only latencies.")]


def best(
    context: typer.Context,
    target: Annotated[str, typer.Option(help="Id or name of a target.")],
    network: Annotated[str | None, typer.Option(help="Id or name of a network.")] = None,
    workload: WorkloadFilter = None,
    traces: Annotated[bool, typer.Option("--traces", help="With --json: include the TVM traces.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the best known schedules.

    One for each task of a network, or for one workload, each labelled with how it is known. For what was not measured
    on the target: what tuning is expected to reach, and the interval that holds four of five later measurements.
    """
    if (network is None) == (workload is None):
        raise typer.BadParameter("give one of --network and --workload")
    found = connect(context).best_schedules(target, network=network, workload=workload, traces=traces)
    if as_json:
        print_json(found)
        return
    columns = (
        "task",
        "weight",
        "work",
        "label",
        "latency",
        "GFLOP/s",
        "expected (80 %)",
        "quality",
        "from",
        "schedule",
    )
    rows = [
        (
            it.name,
            it.weight,
            flops(it.flops),
            it.label.value,
            duration(it.latency_s),
            throughput(it.flops, it.latency_s),
            expected(it),
            it.quality,
            it.from_target,
            it.schedule and it.schedule[:12],
        )
        for it in found.schedules
    ]
    print_table(None, columns, rows, right=("weight", "work", "latency", "GFLOP/s"), empty="no tasks")
    if found.latency_s is not None:
        stdout_console().print(f"sum over tasks: {duration(found.latency_s)}")
    elif found.expected_latency_s is not None:
        stdout_console().print(f"expected sum over tasks: {expected(found)}")


def build(
    context: typer.Context,
    network: Annotated[str | None, typer.Option(help="Id or name of a network.")] = None,
    target: TargetFilter = None,
    build_id: Annotated[str | None, typer.Option("--id", help="An existing build instead of a new one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the artifact, new or empty.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Build a network from the best schedules.

    It is compiled with what is known now, verified and timed; `--out` downloads the artifact.
    """
    client = connect(context)
    wanted = _build_id(client, network, target, build_id)
    with busy(f"building {wanted}"):
        made = client.wait_build(wanted)
        failed = _failure(made)
        if out is not None and failed is None:
            client.download_artifact(made.id, out)
    if as_json:
        print_json(made)
    else:
        _print_build(made, out if failed is None else None)
    if failed is not None:
        note(f"error: build {made.id} {made.state.value}: {failed}")
        raise typer.Exit(1)


def _build_id(client: Client, network: str | None, target: str | None, build_id: str | None) -> str:
    from crosstune.service.schemas.builds import BuildIn

    if build_id is not None and network is None and target is None:
        return build_id
    if build_id is not None or network is None or target is None:
        raise typer.BadParameter("give --network and --target for a new build, or --id for an existing one")
    return client.create_build(BuildIn(network=network, target=target)).id


def _failure(made: BuildOut) -> str | None:
    from crosstune.service.schemas.builds import BuildState

    if made.state is BuildState.SUCCEEDED:
        return None
    return made.failure.detail if made.failure is not None else "no reason was given"


def _print_build(made: BuildOut, out: Path | None) -> None:
    labels = Counter(pin.label.value for pin in made.schedules)
    rows = [
        ("build", made.id),
        ("state", made.state.value),
        ("network", made.network),
        ("target", made.target),
        ("default schedules", duration(made.untuned_latency_s)),
        ("tuned", f"{duration(made.tuned_latency_s)} ({speedup(made.untuned_latency_s, made.tuned_latency_s)})"),
        ("onnxruntime", duration(made.reference_latency_s)),
        ("largest error", None if made.largest_error is None else f"{made.largest_error:.2g}"),
        ("scheduled tasks", f"{made.workloads_applied} of {made.workloads_total}" if made.workloads_total else None),
        ("schedules", ", ".join(f"{count} {label}" for label, count in labels.items()) or None),
        ("artifact", out),
    ]
    print_table(None, ("", ""), rows)
    for one in made.defaults:
        note(f"workload {one.workload[:12]} has its default schedule: {one.reason}")


def records(
    context: typer.Context,
    target: TargetFilter = None,
    workload: WorkloadFilter = None,
    failed: FailedFilter = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List records, newest first.

    A record is the verdict on one schedule of one workload on one target.
    """
    client = connect(context)
    found = client.collect(client.list_records, limit, target=target, workload=workload, failed=failed)
    if as_json:
        print_json(found)
        return
    columns = ("target", "workload", "schedule", "latency", "quality", "status", "failure", "source", "updated")
    rows = [
        (
            it.target,
            it.workload[:12],
            it.schedule[:12],
            duration(it.latency_s),
            it.quality,
            it.status,
            it.invalidity,
            it.source,
            it.updated_at,
        )
        for it in found
    ]
    print_table(None, columns, rows, right=("latency",), empty="no records")


def export(
    context: typer.Context,
    file_format: Annotated[Format, typer.Option("--format", help="Form of the export.")] = Format.NDJSON,
    out: Annotated[Path | None, typer.Option(help="A file; else stdout.")] = None,
    target: TargetFilter = None,
    workload: WorkloadFilter = None,
    failed: FailedFilter = None,
    as_json: JsonOption = False,
) -> None:
    """Export records with their traces.

    One JSON object a line, oldest first.
    """
    lines = connect(context).export_lines(target, workload, failed)
    if out is None:
        for line in lines:
            sys.stdout.write(line + "\n")
        return
    draft = out.with_name(f".{out.name}.part")
    count = 0
    with draft.open("w") as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    draft.replace(out)
    if as_json:
        print_json({"file": str(out), "format": file_format.value, "records": count})
    else:
        stdout_console().print(f"{count} records in {out}", markup=False)


def withdraw(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Shown with the records and the cost models.")],
    device: Annotated[str | None, typer.Option(help="Id or name of the device that measured.")] = None,
    worker: Annotated[str | None, typer.Option(help="Id of the worker that measured.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Measured then or later (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Measured then or before (UTC).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take back what a device or a worker measured.

    Records are judged by what is left, and versions of the cost model that may have learnt from it are marked.
    """
    from crosstune.service.schemas.records import WithdrawIn

    between = {name: at.replace(tzinfo=UTC) for name, at in (("since", since), ("until", until)) if at is not None}
    found = connect(context).withdraw_records(WithdrawIn(device=device, worker=worker, reason=reason, **between))
    if as_json:
        print_json(found)
        return
    marked = f"; marked: {', '.join(found.cost_models)}" if found.cost_models else ""
    stdout_console().print(f"{found.measurements} measurements of {found.records} records withdrawn{marked}")


def register(application: typer.Typer) -> None:
    for command in (best, build, records, export, withdraw):
        application.command()(command)
