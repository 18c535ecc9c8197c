"""`crosstune submit`, `watch` and `job`: tuning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crosstune.service.cli.connection import connect
from crosstune.service.cli.options import (
    JsonOption,
    LabelsOption,
    LimitOption,
    ShapesOption,
    parse_labels,
    parse_shapes,
)
from crosstune.service.cli.output import (
    busy,
    duration,
    expected,
    flops,
    note,
    print_json,
    print_json_line,
    print_table,
    speedup,
    stdout_console,
)

if TYPE_CHECKING:
    from crosstune.service.client import Client
    from crosstune.service.schemas.jobs import JobDetail, JobOut, JobPlan

group = typer.Typer(no_args_is_help=True, help="Jobs: tune a network for a target within a budget.")
DEFAULT_MINUTES = 5.0
COLUMNS = ("id", "state", "network", "target", "trials", "best", "gain")
JobArgument = Annotated[str, typer.Argument(help="Id of a job.")]
TrialsOption = Annotated[int | None, typer.Option(min=1, help="At most so many candidates are measured.")]
MinutesOption = Annotated[float | None, typer.Option(help="At most so many minutes of tuning; fractions are fine.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")]


def submit(
    context: typer.Context,
    network: Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX file, or a network's id or name.")],
    target: Annotated[str, typer.Option(help="A target's id or name; `host` is the service's own machine.")] = "host",
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    shape: ShapesOption = None,
    label: LabelsOption = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher goes first.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    whole_budget: Annotated[
        bool, typer.Option("--whole-budget", help="Go on although another minute is expected to gain below 0.5 %.")
    ] = False,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Gets the job by POST when it has ended.")] = None,
    wait: WaitOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the job would do and create nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tune a network for a target.

    Ends at the first limit that is reached; without one, after five minutes. Ends before when it has converged.
    """
    shapes, labels = parse_shapes(shape), parse_labels(label)
    seconds = _seconds(minutes, trials)
    client = connect(context)
    with busy(f"importing {network}"):
        body = client.prepare(
            network,
            target,
            trials=trials,
            seconds=seconds,
            shapes=shapes,
            labels=labels,
            priority=priority,
            seed=seed,
            whole_budget=whole_budget,
            webhook=webhook,
        )
    if dry_run:
        _print_plan(client.plan_job(body), as_json)
        return
    job = client.create_job(body)
    if wait:
        _finish(client, job.id, as_json)
    elif as_json:
        print_json(job)
    else:
        stdout_console().print(f"{job.id} {job.state.value}; `crosstune watch {job.id}` follows it", markup=False)


def watch(context: typer.Context, job: JobArgument, as_json: JsonOption = False) -> None:
    """Follow a job to its end.

    Exit code 0 when it succeeds. With --json: its events as NDJSON, from the first on.
    """
    client = connect(context)
    if not as_json:
        _finish(client, job, False)
        return
    with _interruptible(job):
        ended = client.wait(job, on_event=print_json_line)
    _exit_of(ended)


@group.command("list")
def list_jobs(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, ...")] = None,
    network: Annotated[str | None, typer.Option(help="Id or name.")] = None,
    target: Annotated[str | None, typer.Option(help="Id or name.")] = None,
    label: LabelsOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    from crosstune.service.schemas.jobs import JobState

    if state is not None and state not in list(JobState):
        raise typer.BadParameter(f"one of {', '.join(JobState)}", param_hint="--state")
    client = connect(context)
    chosen = {"network": network, "target": target, "labels": parse_labels(label)}
    jobs = client.collect(client.list_jobs, limit, state=None if state is None else JobState(state), **chosen)
    if as_json:
        print_json(jobs)
        return
    from crosstune.service.progress import names_of

    names, right = names_of(client, jobs), ("trials", "best", "gain")
    print_table(
        None,
        COLUMNS,
        [_row(job, names) for job in jobs],
        right,
        empty="no jobs; `crosstune submit MODEL.onnx` makes one",
    )


@group.command()
def show(context: typer.Context, job: JobArgument, as_json: JsonOption = False) -> None:
    """Show a job and its tasks."""
    client = connect(context)
    _print_job(client, client.get_job(job), as_json)


@group.command()
def cancel(context: typer.Context, job: JobArgument, as_json: JsonOption = False) -> None:
    """Stop a job; what it has measured stays."""
    client = connect(context)
    _print_job(client, client.cancel_job(job), as_json)


@group.command()
def resume(
    context: typer.Context,
    job: JobArgument,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let a job that has ended go on, with more budget on top of what it had. Without one: five minutes."""
    from crosstune.service.schemas.jobs import Budget, JobResume

    seconds = _seconds(minutes, trials)
    client = connect(context)
    resumed = client.resume_job(job, JobResume(budget=Budget(trials=trials, seconds=seconds)))
    if wait:
        _finish(client, resumed.id, as_json)
    else:
        _print_job(client, resumed, as_json)


def _seconds(minutes: float | None, trials: int | None) -> float | None:
    if minutes is None:
        return None if trials is not None else 60.0 * DEFAULT_MINUTES
    if minutes <= 0:
        raise typer.BadParameter(f"{minutes:g} is not above 0", param_hint="--minutes")
    return 60.0 * minutes


def _finish(client: Client, job_id: str, as_json: bool) -> None:
    """Follow a job with a live view on stderr, print how it ended, and leave with its exit code."""
    from crosstune.service.progress import follow

    with _interruptible(job_id):
        ended = follow(client, job_id)
    if as_json:
        print_json(ended)
    else:
        _print_end(client, ended)
    _exit_of(ended)


@contextmanager
def _interruptible(job_id: str) -> Iterator[None]:
    """Ctrl-C ends the view, not the job, and says so."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"the job goes on; `crosstune watch {job_id}` follows it, `crosstune job cancel {job_id}` stops it")
        raise typer.Exit(1) from None


def _exit_of(job: JobDetail) -> None:
    from crosstune.service.schemas.jobs import JobState

    if job.state is not JobState.SUCCEEDED:
        reason = f": {job.failure.detail}" if job.failure is not None else ""
        note(f"error: job {job.id} {job.state.value}{reason}")
        raise typer.Exit(1)


def _print_end(client: Client, job: JobDetail) -> None:
    console = stdout_console()
    console.print(
        f"{job.id} {job.state.value}: {job.trials} trials in {duration(job.seconds)}; tasks "
        f"{duration(job.untuned_latency_s)} by default, {duration(job.best_latency_s)} tuned "
        f"({speedup(job.untuned_latency_s, job.best_latency_s)})",
        markup=False,
    )
    if job.build is not None:
        build = client.get_build(job.build)
        console.print(
            f"{build.id} {build.state.value}: whole network {duration(build.untuned_latency_s)} by default, "
            f"{duration(build.tuned_latency_s)} tuned ({speedup(build.untuned_latency_s, build.tuned_latency_s)}), "
            f"onnxruntime {duration(build.reference_latency_s)}",
            markup=False,
        )
        console.print(f"`crosstune build --id {build.id} --out DIR` downloads it", markup=False)


def _print_job(client: Client, job: JobDetail, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    from crosstune.service.progress import names_of, render_job

    stdout_console().print(render_job(job, names_of(client, [job])))


def _print_plan(plan: JobPlan, as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    rows = [
        (it.name, it.weight, flops(it.flops), it.known, duration(it.best_latency_s), expected(it)) for it in plan.tasks
    ]
    right = ("weight", "work", "best")
    print_table(None, ("task", "weight", "work", "known", "best", "expected (80 %)"), rows, right)
    console = stdout_console()
    if plan.expected_latency_s is not None:
        console.print(f"expected sum over tasks: {expected(plan)}", markup=False)
    console.print(f"estimated time {duration(plan.estimated_seconds)}: {plan.estimate_basis}", markup=False)
    if plan.unsupported_operators:
        console.print(f"unsupported operators: {', '.join(plan.unsupported_operators)}", markup=False)
    if not plan.device_live:
        console.print("no live worker could run it now", markup=False)


def _row(job: JobOut, names: dict[str, str]) -> tuple[Any, ...]:
    return (
        job.id,
        job.state.value,
        names.get(job.network, job.network),
        names.get(job.target, job.target),
        job.trials,
        duration(job.best_latency_s),
        speedup(job.untuned_latency_s, job.best_latency_s),
    )


def register(application: typer.Typer) -> None:
    application.command()(submit)
    application.command()(watch)
    application.add_typer(group, name="job")
