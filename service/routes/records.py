"""Records: list, export, import, withdraw."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from crosstune.db.errors import IdempotencyConflict, IdempotencyInProgress
from crosstune.service import errors, networks, records
from crosstune.service.deps import IdempotencyKey, ServicesDep
from crosstune.service.principal import Administrator, Reader
from crosstune.service.problems import problems
from crosstune.service.routes.common import DEFAULT_LIMIT, Cursor, Limit, NetworkQuery, TargetQuery, WorkloadQuery
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.records import ExportFormat, LoadOut, RecordOut, WithdrawIn, WithdrawOut

router = APIRouter(prefix="/v1/records", tags=["records"])

FailedQuery = Annotated[
    bool | None, Query(description="true: only schedules that failed; false: only those with a latency.")
]


@router.get(
    "",
    operation_id="list_records",
    summary="List records",
    response_model=Page[RecordOut],
    responses=problems(errors.TargetUnknown, errors.NetworkUnknown, errors.WorkloadUnknown, errors.CursorRefused),
)
def list_records(
    caller: Reader,
    services: ServicesDep,
    target: TargetQuery = None,
    network: NetworkQuery = None,
    workload: WorkloadQuery = None,
    failed: FailedQuery = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[RecordOut]:
    return records.page(services, caller, records.RecordFilter(target, network, workload, failed), limit, cursor)


@router.get(
    "/export",
    operation_id="export_records",
    summary="Export records",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One JSON object a line, each an ExportedRecord.",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
        **problems(errors.TargetUnknown, errors.NetworkUnknown, errors.WorkloadUnknown),
    },
)
def export_records(
    caller: Reader,
    services: ServicesDep,
    format: Annotated[ExportFormat, Query(description="Form of the export.")] = ExportFormat.NDJSON,
    target: TargetQuery = None,
    network: NetworkQuery = None,
    workload: WorkloadQuery = None,
    failed: FailedQuery = None,
) -> StreamingResponse:
    """Every record that the filter selects, oldest first, with its trace; streamed, whatever their number."""
    lines = records.export(services, caller, records.RecordFilter(target, network, workload, failed))
    return StreamingResponse(
        lines,
        media_type="application/x-ndjson",
        headers={"content-disposition": f'attachment; filename="records.{format}"'},
    )


@router.post(
    "/import",
    operation_id="import_records",
    summary="Import records",
    status_code=202,
    response_model=LoadOut,
    responses=problems(
        errors.UploadEmpty,
        errors.BodyTooLarge,
        errors.ContentTypeRefused,
        IdempotencyConflict,
        IdempotencyInProgress,
        errors.LimitReached,
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The training set of a cost model, as another service hands it out: a tar.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
        }
    },
)
async def import_records(
    request: Request, caller: Administrator, services: ServicesDep, key: IdempotencyKey = None
) -> JSONResponse:
    """Records of workloads that are known here. They are `imported`: searches try them first, and none is best before
    it was measured here."""
    incoming = await networks.receive(services, request.stream())
    reply = await run_in_threadpool(records.load, services, caller, key, incoming)
    return reply.response()


@router.post(
    "/withdraw",
    operation_id="withdraw_records",
    summary="Withdraw measurements",
    response_model=WithdrawOut,
    responses=problems(errors.DeviceUnknown, errors.WorkerUnknown),
)
def withdraw_records(caller: Administrator, services: ServicesDep, body: WithdrawIn) -> WithdrawOut:
    """Take back what a device or a worker measured. Records are judged by what is left, and versions of the cost model
    that may have learnt from it are marked."""
    return records.withdraw(services, caller, body)
