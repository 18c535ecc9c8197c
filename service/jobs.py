"""Jobs: submit, show, cancel, resume, and the events that tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from crosstune.db.engine import reading, retrying
from crosstune.db.ids import Prefix
from crosstune.db.repositories import devices, events, jobs, labels, networks, steps, tasks
from crosstune.db.repositories.jobs import JobRow
from crosstune.db.repositories.networks import NetworkState
from crosstune.service import availability, idempotency, job_views, journal, lookups, webhooks, work
from crosstune.service.errors import BudgetRefused, JobIsOver, JobNotOver
from crosstune.service.principal import Principal
from crosstune.service.replies import Reply, reply
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.jobs import JobDetail, JobEvent, JobIn, JobOut, JobResume, JobState
from crosstune.service.services import Services

LIST = "jobs"


@dataclass(frozen=True, slots=True)
class JobFilter:
    state: JobState | None = None
    network: str | None = None
    target: str | None = None
    labels: tuple[str, ...] = ()
    """`key=value` each."""


@dataclass(frozen=True, slots=True)
class EventPart:
    """Some of a job's events, in order; `over` when the job has ended and these are the last."""

    events: Sequence[JobEvent]
    over: bool
    snapshot: JobDetail | None = None
    """The job as it is, in place of events that are no longer kept."""
    snapshot_sequence: int = 0


def create(services: Services, caller: Principal, key: str | None, body: JobIn) -> Reply:
    """Job, tasks, first step, first event and the remembered answer: all in one transaction, or nothing."""
    if body.webhook is not None:
        webhooks.check_address(body.webhook, services.settings)

    def submit(connection: Connection) -> Reply:
        network = lookups.usable_network(connection, caller, body.network)
        target = lookups.target(connection, body.target)
        job = jobs.create(
            connection,
            project_id=caller.project_id,
            network_id=network.id,
            target_key=target.key,
            budget_trials=body.budget.trials,
            budget_s=body.budget.seconds,
            seed=body.seed,
            priority=body.priority,
            whole_budget=body.whole_budget,
            webhook=body.webhook,
        )
        if body.labels:
            labels.replace(connection, caller.project_id, job.id, body.labels)
        journal.note(connection, caller, "create", job.id)
        return reply(201, job_views.detail(services, connection, start_job(connection, job)))

    request = ["create_job", body.model_dump(mode="json")]
    return idempotency.once(services, caller, key, request, submit)


def start_job(connection: Connection, job: JobRow) -> JobRow:
    """Give a queued job its tasks and its first round as soon as its network is ready; returns it as it is then.

    Called when a job is submitted or resumed, and by the worker, in the transaction that ends an import, for every
    unfinished job of that network; nobody else may see or change the job meanwhile (jobs.lock). Calling it again
    changes nothing. A refused network fails the job.
    """
    if job.ended or job.cancel_requested or job.network_state == NetworkState.IMPORTING:
        return job
    if job.network_state == NetworkState.REFUSED:
        detail = (networks.get(connection, job.network_id).refusal or {}).get("detail", "")
        jobs.end_failed(connection, job.id, "network-refused", f"the network cannot be imported: {detail}")
        return jobs.get(connection, job.id)
    if not tasks.exist(connection, job.id) and not tasks.copy_from_network(connection, job.id, job.network_id):
        jobs.end_failed(connection, job.id, "no-tasks", "the network has no workload that could be tuned")
        return jobs.get(connection, job.id)
    if not steps.exist_for(connection, job.id):
        work.enqueue_round(connection, job)
    if not devices.any_for(connection, job.target_key):
        message = availability.no_device_text(job.target_id)
        return jobs.transition(connection, job.id, jobs.JobState.WAITING_FOR_DEVICE, message=message)
    return job


def page(services: Services, caller: Principal, chosen: JobFilter, limit: int, cursor: str | None) -> Page[JobOut]:
    before = lookups.page_start(LIST, cursor, Prefix.JOB)
    with reading(services.engine) as connection:
        network = lookups.network(connection, caller, chosen.network) if chosen.network else None
        target = lookups.target(connection, chosen.target) if chosen.target else None
        rows = jobs.list_page(
            connection,
            caller.project_id,
            limit + 1,
            before,
            state=chosen.state,
            network_id=network.id if network else None,
            target_key=target.key if target else None,
            labels=dict(label.split("=", 1) for label in chosen.labels),
        )
        return lookups.page_of(
            LIST, rows, limit, lambda shown: job_views.outlines(services, connection, shown), lambda row: row.id
        )


def show(services: Services, caller: Principal, job_id: str) -> JobDetail:
    with reading(services.engine) as connection:
        return job_views.detail(services, connection, lookups.job(connection, caller, job_id))


def cancel(services: Services, caller: Principal, job_id: str) -> JobDetail:
    def stop(connection: Connection) -> JobDetail:
        job = lookups.job(connection, caller, job_id)
        if job.ended and job.state != jobs.JobState.CANCELLED:
            raise JobIsOver(job.id, job.state, "cancelled")
        journal.note(connection, caller, "cancel", job.id)
        return job_views.detail(services, connection, jobs.cancel(connection, job.id))

    return retrying(services.engine, stop)


def resume(services: Services, caller: Principal, key: str | None, job_id: str, body: JobResume) -> Reply:
    """Let an ended job go on with more budget."""

    def go_on(connection: Connection) -> Reply:
        lookups.job(connection, caller, job_id)
        job = jobs.lock(connection, job_id)
        if not job.ended:
            raise JobNotOver(job.id, job.state)
        lookups.refuse_unusable(networks.get(connection, job.network_id))
        _refuse_useless_budget(job, body)
        job = jobs.resume(connection, job.id, add_trials=body.budget.trials, add_s=body.budget.seconds)
        tasks.reopen(connection, job.id)
        journal.note(connection, caller, "resume", job.id)
        return reply(200, job_views.detail(services, connection, start_job(connection, job)))

    request = ["resume_job", job_id, body.model_dump(mode="json")]
    return idempotency.once(services, caller, key, request, go_on)


def _refuse_useless_budget(job: JobRow, body: JobResume) -> None:
    """A job that is limited by trials is not helped by seconds alone, and the other way round."""
    spent_trials = job.budget_trials is not None and job.trials >= job.budget_trials and body.budget.trials is None
    spent_seconds = job.budget_s is not None and job.searched_s >= job.budget_s and body.budget.seconds is None
    if spent_trials:
        raise BudgetRefused(f"job {job.id} has used all its {job.budget_trials} trials; add some with budget.trials")
    if spent_seconds:
        raise BudgetRefused(f"job {job.id} has used all its {job.budget_s:g} seconds; add some with budget.seconds")


def events_after(services: Services, caller: Principal, job_id: str, after: int, limit: int) -> EventPart:
    """The events that follow number `after`, at most `limit`, or a snapshot when those are no longer kept."""
    with reading(services.engine) as connection:
        job = lookups.job(connection, caller, job_id)
        earliest = events.earliest(connection, job_id)
        first_kept = job.event_sequence + 1 if earliest is None else earliest
        if after > job.event_sequence or after + 1 < first_kept:
            snapshot = job_views.detail(services, connection, job)
            return EventPart((), job.ended, snapshot, job.event_sequence)
        rows = events.after(connection, job_id, after, limit)
    last = rows[-1].sequence if rows else after
    shown = [
        JobEvent(sequence=row.sequence, kind=row.kind, job=job_id, at=lookups.utc(row.created_at), data=row.data)
        for row in rows
    ]
    return EventPart(shown, job.ended and last >= job.event_sequence)
