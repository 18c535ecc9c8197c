"""Records: list and export."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from crosstune.service import errors, records
from crosstune.service.deps import ServicesDep
from crosstune.service.principal import Reader
from crosstune.service.problems import problems
from crosstune.service.routes.common import DEFAULT_LIMIT, Cursor, Limit, NetworkQuery, TargetQuery, WorkloadQuery
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.records import ExportFormat, RecordOut

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
