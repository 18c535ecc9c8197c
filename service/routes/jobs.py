"""Jobs: submit, watch, cancel, resume."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from crosstune.db.errors import IdempotencyConflict, IdempotencyInProgress
from crosstune.service import errors, jobs, plans
from crosstune.service.deps import IdempotencyKey, ServicesDep
from crosstune.service.events import Watch, watch
from crosstune.service.principal import Reader, Submitter
from crosstune.service.problems import problems
from crosstune.service.routes.common import DEFAULT_LIMIT, Cursor, JobPath, Limit, NetworkQuery, TargetQuery
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.jobs import JobDetail, JobIn, JobOut, JobPlan, JobResume, JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}=[^\x00-\x1f\x7f]{0,200}$"
LabelQuery = Annotated[
    list[Annotated[str, Query(pattern=LABEL_PATTERN)]],
    Query(max_length=16, description="`key=value` that the job must have; repeat for more."),
]


@router.post(
    "",
    operation_id="create_job",
    summary="Submit a job",
    status_code=201,
    response_model=JobDetail,
    responses={
        200: {"model": JobPlan, "description": "With `dry_run=true`: what the job would do."},
        **problems(
            errors.NetworkUnknown,
            errors.TargetUnknown,
            errors.NetworkUnusable,
            errors.NetworkNotReady,
            errors.NetworkBytesDeleted,
            errors.WebhookRefused,
            IdempotencyConflict,
            IdempotencyInProgress,
        ),
    },
)
def create_job(
    caller: Submitter,
    services: ServicesDep,
    body: JobIn,
    key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="Create nothing; answer what the job would do.")] = False,
) -> JSONResponse:
    """Tune a network for a target within a budget of trials, seconds or both.

    A job for a network that is still importing starts when the import is done. Without an Idempotency-Key every
    submit is a new job.
    """
    if dry_run:
        return plans.plan(services, caller, body).response()
    return jobs.create(services, caller, key, body).response()


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs",
    response_model=Page[JobOut],
    responses=problems(errors.NetworkUnknown, errors.TargetUnknown, errors.CursorRefused),
)
def list_jobs(
    caller: Reader,
    services: ServicesDep,
    state: Annotated[JobState | None, Query()] = None,
    network: NetworkQuery = None,
    target: TargetQuery = None,
    label: LabelQuery = [],  # noqa: B006  FastAPI copies it
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[JobOut]:
    return jobs.page(services, caller, jobs.JobFilter(state, network, target, tuple(label)), limit, cursor)


@router.get(
    "/{job}",
    operation_id="get_job",
    summary="Show a job",
    response_model=JobDetail,
    responses=problems(errors.JobUnknown),
)
def get_job(caller: Reader, services: ServicesDep, job: JobPath) -> JobDetail:
    return jobs.show(services, caller, job)


@router.get(
    "/{job}/events",
    operation_id="job_events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses=problems(errors.JobUnknown, errors.EventIdRefused),
)
async def job_events(watching: Annotated[Watch, Depends(watch)]) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events from the first on, or from after Last-Event-ID; the stream ends when the job has ended.

    Ids count from 1 within the job. When older events than are kept are asked for, the first event is a `snapshot`
    of the job. A comment comes every 15 s when nothing happens.
    """
    async for event in watching.events():
        yield event


@router.post(
    "/{job}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    response_model=JobDetail,
    responses=problems(errors.JobUnknown, errors.JobIsOver),
)
def cancel_job(caller: Submitter, services: ServicesDep, job: JobPath) -> JobDetail:
    """Stop a job; what it has measured stays. Cancelling a job that is cancelled changes nothing."""
    return jobs.cancel(services, caller, job)


@router.post(
    "/{job}/resume",
    operation_id="resume_job",
    summary="Resume a job with more budget",
    response_model=JobDetail,
    responses=problems(
        errors.JobUnknown,
        errors.JobNotOver,
        errors.BudgetRefused,
        errors.NetworkUnusable,
        errors.NetworkBytesDeleted,
        IdempotencyConflict,
        IdempotencyInProgress,
    ),
)
def resume_job(
    caller: Submitter, services: ServicesDep, job: JobPath, body: JobResume, key: IdempotencyKey = None
) -> JSONResponse:
    """Let a job that has ended go on from what it knows, with `budget` on top of what it had."""
    return jobs.resume(services, caller, key, job, body).response()
