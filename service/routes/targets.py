"""Targets: register by hand or by looking at this machine; calibrate."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from crosstune.db.errors import IdempotencyConflict, IdempotencyInProgress, NameTaken
from crosstune.service import errors, targets
from crosstune.service.deps import IdempotencyKey, ServicesDep
from crosstune.service.principal import Administrator, Reader, Submitter
from crosstune.service.problems import problems
from crosstune.service.routes.common import DEFAULT_LIMIT, Cursor, Limit, TargetPath
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.targets import CalibrateIn, DetectIn, ExploreIn, StepOut, TargetIn, TargetOut
from crosstune.tuner.contracts import TargetRefused

router = APIRouter(prefix="/v1/targets", tags=["targets"])
EXISTING: dict[int | str, dict[str, Any]] = {
    200: {"model": TargetOut, "description": "The same target is there already."}
}


@router.post(
    "",
    operation_id="create_target",
    summary="Register a target",
    status_code=201,
    response_model=TargetOut,
    responses={**EXISTING, **problems(NameTaken, errors.DeviceUnknown, TargetRefused)},
)
def create_target(caller: Submitter, services: ServicesDep, body: TargetIn) -> JSONResponse:
    """Describe hardware by hand: 201 when the description is new, 200 when it is there already."""
    return targets.create(services, caller, body).response()


@router.post(
    "/detect",
    operation_id="detect_target",
    summary="Register this machine",
    status_code=201,
    response_model=TargetOut,
    responses={**EXISTING, **problems(NameTaken, TargetRefused)},
)
def detect_target(caller: Administrator, services: ServicesDep, body: DetectIn) -> JSONResponse:
    """Register the machine that the service runs on, with its hardware attributes and its device.

    Members of the body override what is detected, so that one machine can stand for several targets.
    """
    return targets.detect(services, caller, body).response()


@router.get(
    "",
    operation_id="list_targets",
    summary="List targets",
    response_model=Page[TargetOut],
    responses=problems(errors.CursorRefused),
)
def list_targets(
    caller: Reader, services: ServicesDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[TargetOut]:
    return targets.page(services, caller, limit, cursor)


@router.get(
    "/{target}",
    operation_id="get_target",
    summary="Show a target",
    response_model=TargetOut,
    responses=problems(errors.TargetUnknown),
)
def get_target(caller: Reader, services: ServicesDep, target: TargetPath) -> TargetOut:
    return targets.show(services, caller, target)


@router.post(
    "/{target}/calibrate",
    operation_id="calibrate_target",
    summary="Calibrate a target's device",
    status_code=202,
    response_model=StepOut,
    responses=problems(
        errors.TargetUnknown,
        errors.DeviceUnknown,
        errors.NoDeviceForTarget,
        IdempotencyConflict,
        IdempotencyInProgress,
    ),
)
def calibrate_target(
    caller: Submitter, services: ServicesDep, target: TargetPath, body: CalibrateIn, key: IdempotencyKey = None
) -> JSONResponse:
    """Measure the device's speed, bandwidth and loop overhead soon; the target's attributes then say `calibrated`."""
    return targets.calibrate(services, caller, key, target, body).response()


@router.post(
    "/{target}/explore",
    operation_id="explore_target",
    summary="Measure what teaches most about a target",
    status_code=202,
    response_model=StepOut,
    responses=problems(
        errors.TargetUnknown,
        errors.NoDeviceForTarget,
        IdempotencyConflict,
        IdempotencyInProgress,
    ),
)
def explore_target(
    caller: Submitter, services: ServicesDep, target: TargetPath, body: ExploreIn, key: IdempotencyKey = None
) -> JSONResponse:
    """Spend a budget on workloads that other targets know and this one does not, while no job wants its device: what is
    expected of all others gets surer, and a retraining learns of the hardware."""
    return targets.explore(services, caller, key, target, body).response()
