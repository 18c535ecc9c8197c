"""What a job does next: rounds of the most promising tasks, the build of its network, or nothing more.

Called inside the transaction that ends a step, so that a job always has a way on. It has as many rounds at once, of
different tasks, as its target has devices that no other job waits for.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from crosstune.db.repositories import builds, devices, jobs, projects, schedules, steps, targets, tasks
from crosstune.db.repositories.jobs import JobRow, JobState
from crosstune.db.repositories.steps import StepKind
from crosstune.db.repositories.tasks import TaskRow
from crosstune.service import work
from crosstune.service.pins import best_pins
from crosstune.tuner.allocation import (
    LEAST_GAIN,
    Outlook,
    Plan,
    TaskState,
    gain_per_minute,
    network_estimate_s,
    next_task,
    outlook,
)
from crosstune.tuner.gains import Best

TRIALS_PER_S = 4.0
"""Turns a budget of seconds into trials when the size of a round is chosen."""
SMALLEST_ROUND = 8
ROUNDS_PER_TASK = 4
"""A budget should allow about this many rounds of each task, or the search learns nothing from its first ones."""
FRUITLESS_ROUNDS = 2
"""A task without a single valid candidate in so many rounds is given up."""
PEAK_FACT = "peak_flops_per_s"


def plan_next(connection: Connection, job_id: str, round_trials: int, seen_after: float | None = None) -> None:
    """Add the job's next rounds, or end its search; the job's row is locked from here to the commit.

    `seen_after`: workers heard of since (UTC seconds) count as live; None: there is one device.
    """
    job = jobs.lock(connection, job_id)
    if job.ended or jobs.settle_cancelled(connection, job_id) or job.cancel_requested:
        return
    rows, live = tasks.of_job(connection, job_id), steps.live_rounds(connection, job_id)
    room = _room(connection, job, len(live), seen_after)
    reason = _add_rounds(connection, job, rows, live, room, round_trials)
    if reason is not None and not live:
        _start_build(connection, job, rows, reason)


def _room(connection: Connection, job: JobRow, live: int, seen_after: float | None) -> int:
    """How many rounds the job may have besides its `live` ones: one in all, or one for each device of its target that
    other work leaves."""
    if seen_after is None:
        return 1 - live
    others = steps.count_live(connection, work.target_queue(job.target_id), StepKind.ROUND) - live
    return max(1, devices.serving(connection, job.target_key, seen_after) - others) - live


def _add_rounds(
    connection: Connection,
    job: JobRow,
    rows: Sequence[TaskRow],
    live: list[dict[str, Any]],
    room: int,
    round_trials: int,
) -> str | None:
    """Add to `live`, the inputs of rounds that wait or run, at most `room` of other tasks. Returns why the search is
    over, None when it goes on."""
    states, facts = task_states(connection, job, rows), forecast_plan(connection, job, round_trials)
    for _ in range(room):
        tried = sum(one.get("trials", 0) for one in live)
        under_way, plan = replace(job, trials=job.trials + tried), replace(facts, trials_left=facts.trials_left - tried)
        reason = _budget_used(under_way)
        if reason is not None:
            return reason
        if next_task(states, plan) is None or _converged(states, plan):
            return jobs.CONVERGED
        busy = {one.get("task_key") for one in live}
        free = [replace(one, exhausted=one.exhausted or row.key in busy) for one, row in zip(states, rows, strict=True)]
        chosen = next_task(free, plan)
        if chosen is None:
            return None
        live.append(_enqueue_round(connection, job, rows[chosen], round_size(under_way, rows, round_trials, busy)))
    return None


def job_outlook(connection: Connection, job: JobRow, rows: Sequence[TaskRow], round_trials: int) -> Outlook | None:
    """What is to be expected of the job's search; None while some task has no latency yet."""
    return outlook(task_states(connection, job, rows), forecast_plan(connection, job, round_trials))


def task_states(connection: Connection, job: JobRow, rows: Sequence[TaskRow]) -> list[TaskState]:
    """Tasks as the allocation sees them, with what other jobs tried of the same workloads."""
    tried = schedules.tried(connection, job.target_key, [row.workload_key for row in rows])
    return [task_state(row, tried[row.workload_key]) for row in rows]


def task_state(row: TaskRow, tried: int) -> TaskState:
    """`tried`: schedules of the workload that are known on the target, those of this job included.

    Rounds without any latency yet are left out of the curve.
    """
    before = max(0, tried - row.trials)
    curve = [Best(before + trials, best_s) for trials, _, best_s in row.history if best_s is not None]
    if not curve and row.best_latency_s is not None:
        curve = [Best(tried, row.best_latency_s)]
    fruitless = row.rounds >= FRUITLESS_ROUNDS and not curve
    return TaskState(
        weight=row.weight,
        flops=row.flops,
        default_s=row.default_latency_s,
        curve=tuple(curve),
        trials=row.trials,
        spent_s=row.searched_s,
        exhausted=row.exhausted or fruitless,
    )


def forecast_plan(connection: Connection, job: JobRow, round_trials: int) -> Plan:
    return Plan(
        round_trials=round_trials,
        peak_flops_per_s=_peak_flops_per_s(connection, job.target_key),
        trials_left=math.inf if job.budget_trials is None else job.budget_trials - job.trials,
        seconds_left=math.inf if job.budget_s is None else job.budget_s - job.searched_s,
        least_gain=0.0 if job.whole_budget else LEAST_GAIN,
    )


def _converged(states: Sequence[TaskState], plan: Plan) -> bool:
    """Another minute is expected to bring too little; never before every task has a latency."""
    gain = gain_per_minute(states, plan)
    return gain is not None and gain < plan.least_gain


def round_size(job: JobRow, rows: Sequence[TaskRow], round_trials: int, busy: Container[int | None] = ()) -> int:
    """Trials of the next round: what lets each task have several rounds, within the setting and what is left.

    While some task has had no round yet, something is kept for each such task, at least its default schedule; those
    whose keys are `busy` have theirs.
    """
    by_trials = math.inf if job.budget_trials is None else job.budget_trials
    by_time = math.inf if job.budget_s is None else job.budget_s * TRIALS_PER_S
    fair = min(by_trials, by_time) / (ROUNDS_PER_TASK * len(rows))
    size = round_trials if math.isinf(fair) else max(SMALLEST_ROUND, math.ceil(fair))
    left_by_trials = math.inf if job.budget_trials is None else job.budget_trials - job.trials
    left_by_time = math.inf if job.budget_s is None else (job.budget_s - job.searched_s) * TRIALS_PER_S
    waiting = sum(row.rounds == 0 and row.key not in busy for row in rows)
    share = min(left_by_trials, left_by_time) / waiting if waiting else left_by_trials
    return int(max(1, min(size, round_trials, share)))


def estimates_s(rows: Sequence[TaskRow]) -> tuple[float | None, float | None]:
    """(untuned, best) latency of the network as the sum over its tasks; None while a task has no latency yet."""
    states = [task_state(row, row.trials) for row in rows]
    return network_estimate_s(states, tuned=False), network_estimate_s(states)


def _budget_used(job: JobRow) -> str | None:
    if job.budget_trials is not None and job.trials >= job.budget_trials:
        return "trials used"
    if job.budget_s is not None and job.searched_s >= job.budget_s:
        return "time used"
    return None


def _enqueue_round(connection: Connection, job: JobRow, task: TaskRow, trials: int) -> dict[str, Any]:
    """The round's input."""
    given = {"job_id": job.id, "task_key": task.key, "trials": trials, "seed": job.seed + task.rounds}
    steps.enqueue(
        connection,
        kind=StepKind.ROUND,
        queue=work.target_queue(job.target_id),
        project_id=job.project_id,
        job_id=job.id,
        target_key=job.target_key,
        workload_key=task.workload_key,
        priority=job.priority,
        input=given,
    )
    return given


def _start_build(connection: Connection, job: JobRow, rows: Sequence[TaskRow], reason: str) -> None:
    jobs.set_stop_reason(connection, job.id, reason)
    build = builds.create(
        connection,
        project_id=job.project_id,
        network_id=job.network_id,
        target_key=job.target_key,
        schedules=best_pins(
            connection,
            job.target_key,
            {row.workload_sha256: row.workload_key for row in rows},
            projects.get(connection, job.project_id).key,
        ),
        job_id=job.id,
    )
    jobs.set_build(connection, job.id, build.id)
    jobs.transition(connection, job.id, JobState.BUILDING)
    work.enqueue_build(connection, build)


def _peak_flops_per_s(connection: Connection, target_key: int) -> float | None:
    for fact in targets.facts_of(connection, target_key):
        if fact.attribute == PEAK_FACT:
            return float(fact.value)
    return None
