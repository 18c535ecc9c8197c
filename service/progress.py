"""A live view of a job: one panel of figures, a bar against the budget, and a table of its tasks.

`render_job` draws a `JobDetail`; `follow` keeps a drawing current from the job's event stream. Events say that
something changed, the figures are then read from the job: a view that resumes after a break shows the truth at once.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crosstune.service.cli.output import ABSENT, duration, flops, speedup, table, throughput
from crosstune.service.client.errors import ApiError, ClientError, ServiceUnreachable
from crosstune.service.schemas.jobs import FINAL_STATES, JobDetail, JobOut, JobState, JobTaskOut

if TYPE_CHECKING:
    from crosstune.service.client import Client

REFRESH_S = 0.5
"""At most one look at the job in this time, however many events arrive."""
IDLE_REFRESH_S = 5.0
"""Looks at the job without any event: a budget in seconds runs on while a long round is measured."""
SHOWN_TASKS = 30
STYLES = {
    JobState.SUCCEEDED: "bold green",
    JobState.FAILED: "bold red",
    JobState.CANCELLED: "bold yellow",
    JobState.CANCELLING: "yellow",
    JobState.WAITING_FOR_DEVICE: "yellow",
}


def render_job(
    job: JobDetail, names: Mapping[str, str] | None = None, shown_tasks: int = SHOWN_TASKS
) -> RenderableType:
    """The whole view as one renderable; tasks that cost most first, the rest counted. `names` are those of ids."""
    parts: list[RenderableType] = [_headline(job, names or {}), _bar(job), _figures(job)]
    if job.waiting_for and job.state not in FINAL_STATES:
        parts.append(Text(job.waiting_for, style="yellow"))
    if job.failure is not None:
        parts.append(Text(f"{job.failure.code}: {job.failure.detail}", style="red"))
    if job.tasks:
        parts += [Text(), _task_table(job, shown_tasks)]
    return Group(*parts)


def budget_share(job: JobDetail) -> float:
    """How much of the budget is used, 0 to 1: the larger share where trials and seconds are both limited."""
    shares = []
    if job.budget.trials:
        shares.append(job.trials / job.budget.trials)
    if job.budget.seconds:
        shares.append(job.seconds / job.budget.seconds)
    return min(1.0, max(shares, default=0.0))


def names_of(client: Client, jobs: Iterable[JobOut]) -> dict[str, str]:
    """The names of the jobs' networks and targets by id; a deleted network has none any more."""
    networks, targets = set[str](), set[str]()
    for job in jobs:
        networks.add(job.network)
        targets.add(job.target)
    names = {target: client.get_target(target).name for target in targets}
    for network in networks:
        try:
            names[network] = client.get_network(network).name
        except ApiError as error:
            if error.status != 404:
                raise
    return names


def _headline(job: JobDetail, names: Mapping[str, str]) -> Text:
    line = Text()
    line.append(job.id, style="bold")
    line.append("  ")
    line.append(job.state.value.replace("_", " "), style=STYLES.get(job.state, "bold cyan"))
    line.append(f"\n{names.get(job.network, job.network)} for {names.get(job.target, job.target)}")
    return line


def _bar(job: JobDetail) -> RenderableType:
    share = 1.0 if job.state is JobState.SUCCEEDED else budget_share(job)
    bar = Table.grid(padding=(0, 1))
    trials = f"{job.trials}" + (f"/{job.budget.trials}" if job.budget.trials else "") + " trials"
    seconds = f"{job.seconds:.0f}" + (f"/{job.budget.seconds:.0f}" if job.budget.seconds else "") + " s"
    bar.add_row(ProgressBar(total=1.0, completed=share, width=40), Text(f"{trials}, {seconds}, {job.rounds} rounds"))
    return bar


def _figures(job: JobDetail) -> Text:
    rate = f"{job.trials / job.seconds:.1f}" if job.seconds > 0 and job.trials else ABSENT
    return Text(
        f"estimated latency {duration(job.best_latency_s)}, {duration(job.untuned_latency_s)} by default "
        f"({speedup(job.untuned_latency_s, job.best_latency_s)}); {rate} trials/s; {_elapsed(job)} elapsed{_ahead(job)}"
    )


def _ahead(job: JobDetail) -> str:
    if job.outlook is None:
        return ""
    return f"; about {duration(job.outlook.seconds_left)} left, to {duration(job.outlook.latency_s)}"


def _elapsed(job: JobDetail) -> str:
    end = job.finished_at or datetime.now(UTC)
    return duration(max(0.0, (end - (job.started_at or job.created_at)).total_seconds()))


def _task_table(job: JobDetail, shown_tasks: int) -> Table:
    tasks = sorted(job.tasks, key=_cost, reverse=True)
    columns = ("task", "weight", "work", "trials", "default", "best", "GFLOP/s", "gain")
    rows = [
        (
            task.name + (" (done)" if task.exhausted else ""),
            task.weight,
            flops(task.flops),
            task.trials,
            duration(task.untuned_latency_s),
            duration(task.best_latency_s),
            throughput(task.flops, task.best_latency_s),
            speedup(task.untuned_latency_s, task.best_latency_s),
        )
        for task in tasks[:shown_tasks]
    ]
    result = table(None, columns, rows, right=columns[1:])
    if len(tasks) > shown_tasks:
        result.caption = f"and {len(tasks) - shown_tasks} cheaper tasks"
    return result


def _cost(task: JobTaskOut) -> tuple[float, float]:
    return ((task.best_latency_s or task.untuned_latency_s or 0.0) * task.weight, task.flops * task.weight)


def follow(client: Client, job_id: str, console: Console | None = None) -> JobDetail:
    """Draw the job until it ends and return how it ended; a terminal is redrawn in place, a file gets lines.

    :raises ApiError: the job is unknown.
    :raises ServiceUnreachable: the service stayed away longer than the client retries.
    """
    console = console or Console(file=sys.stderr)
    return _follow_live(client, job_id, console) if console.is_terminal else _follow_lines(client, job_id, console)


def _follow_live(client: Client, job_id: str, console: Console) -> JobDetail:
    names = names_of(client, [client.get_job(job_id)])
    with Live(console=console, auto_refresh=False) as live:

        def show(job: JobDetail) -> None:
            room = max(5, console.height - 9)
            live.update(render_job(job, names, min(SHOWN_TASKS, room)), refresh=True)

        return _watch(client, job_id, show)


def _follow_lines(client: Client, job_id: str, console: Console) -> JobDetail:
    """One line whenever state or trials changed: for logs and pipes."""
    seen: tuple[JobState, int] | None = None

    def show(job: JobDetail) -> None:
        nonlocal seen
        if (job.state, job.trials) == seen:
            return
        seen = (job.state, job.trials)
        best = duration(job.best_latency_s)
        gain = speedup(job.untuned_latency_s, job.best_latency_s)
        console.print(
            f"{job.id} {job.state.value} {job.trials} trials {job.seconds:.0f} s, best {best} ({gain})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    return _watch(client, job_id, show)


def _watch(client: Client, job_id: str, show: Callable[[JobDetail], None]) -> JobDetail:
    """Call `show` with the job now, after events (not faster than REFRESH_S), and now and then in between."""
    changes: queue.SimpleQueue[ClientError | None] = queue.SimpleQueue()
    # A daemon: when the view ends early (Ctrl-C), the stream is not waited for.
    threading.Thread(target=_listen, args=(client, job_id, changes), daemon=True).start()
    job = client.get_job(job_id)
    while True:
        show(job)
        if job.state in FINAL_STATES:
            return job
        _await_change(changes)
        # While a service is being restarted the stream decides when to give up, and says so through `changes`.
        with suppress(ServiceUnreachable):
            job = client.get_job(job_id)


def _listen(client: Client, job_id: str, changes: queue.SimpleQueue[ClientError | None]) -> None:
    try:
        for _ in client.job_events(job_id):
            changes.put(None)
    except ClientError as error:
        changes.put(error)


def _await_change(changes: queue.SimpleQueue[ClientError | None]) -> None:
    """Return after a change, having swallowed those that came with it; raise what ended the stream."""
    pause_until_s = time.monotonic() + REFRESH_S
    try:
        waiting = [changes.get(timeout=IDLE_REFRESH_S)]
    except queue.Empty:
        return
    time.sleep(max(0.0, pause_until_s - time.monotonic()))
    while not changes.empty():
        waiting.append(changes.get())
    for error in waiting:
        if error is not None:
            raise error
