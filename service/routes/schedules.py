"""The best known schedules."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from crosstune.service import errors, schedules
from crosstune.service.deps import ServicesDep
from crosstune.service.principal import Reader
from crosstune.service.problems import problems
from crosstune.service.routes.common import NetworkQuery, WorkloadQuery
from crosstune.service.schemas.common import Reference
from crosstune.service.schemas.schedules import BestSchedules

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])


@router.get(
    "/best",
    operation_id="best_schedules",
    summary="Best known schedules",
    response_model=BestSchedules,
    responses=problems(
        errors.TargetUnknown,
        errors.NetworkUnknown,
        errors.WorkloadUnknown,
        errors.NetworkNotReady,
        errors.NetworkUnusable,
        errors.SelectionRefused,
    ),
)
def best_schedules(
    caller: Reader,
    services: ServicesDep,
    target: Annotated[Reference, Query(description="Id or name of a target.")],
    network: NetworkQuery = None,
    workload: WorkloadQuery = None,
    traces: Annotated[bool, Query(description="Include the TVM traces.")] = False,
) -> BestSchedules:
    """The best schedule of each workload of a network, or of one workload, labelled with how it is known."""
    return schedules.best(services, caller, target, network, workload, traces)
