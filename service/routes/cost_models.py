"""Cost models: list, retrain, compare, promote, roll back, download."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse, JSONResponse

from crosstune.db.errors import IdempotencyConflict, IdempotencyInProgress
from crosstune.service import cost_models, drift, errors, predicting
from crosstune.service.deps import IdempotencyKey, ServicesDep
from crosstune.service.principal import Administrator, Reader
from crosstune.service.problems import problems
from crosstune.service.routes.common import DEFAULT_LIMIT, Cursor, Limit, TargetQuery
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.cost_models import (
    ComparisonOut,
    CostModelDetail,
    CostModelOut,
    DriftOut,
    JudgeIn,
    JudgeOut,
    PredictIn,
    PredictOut,
    RetrainIn,
    Version,
)
from crosstune.tuner.contracts import ChildFailed

router = APIRouter(prefix="/v1/cost-models", tags=["cost models"])
VersionPath = Annotated[Version, Path(description="Id of a version, or `shipped`.")]
VersionQuery = Annotated[Version, Query(description="Id of a version, or `shipped`.")]


@router.get(
    "",
    operation_id="list_cost_models",
    summary="List cost models",
    response_model=Page[CostModelOut],
    responses=problems(errors.CursorRefused),
)
def list_cost_models(
    caller: Reader, services: ServicesDep, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Page[CostModelOut]:
    """Newest first; the one that comes with the package is the last of all."""
    return cost_models.page(services, limit, cursor)


@router.post(
    "/retrain",
    operation_id="retrain_cost_model",
    summary="Train a new version",
    status_code=202,
    response_model=CostModelOut,
    responses=problems(
        errors.TargetUnknown,
        errors.CostModelUnknown,
        errors.CostModelHasNoFiles,
        errors.RetrainRunning,
        IdempotencyConflict,
        IdempotencyInProgress,
    ),
)
def retrain_cost_model(
    caller: Administrator, services: ServicesDep, body: RetrainIn, key: IdempotencyKey = None
) -> JSONResponse:
    """From what was measured: a version in training, whose state and progress say how it goes. Nobody uses it until it
    is promoted."""
    return cost_models.retrain(services, caller, key, body).response()


@router.post(
    "/judge",
    operation_id="judge_cost_models",
    summary="Judge versions on the same programs",
    status_code=202,
    response_model=JudgeOut,
    responses=problems(errors.CostModelUnknown, errors.CostModelHasNoFiles, IdempotencyConflict, IdempotencyInProgress),
)
def judge_cost_models(
    caller: Administrator, services: ServicesDep, body: JudgeIn, key: IdempotencyKey = None
) -> JSONResponse:
    """Old ones too, so that any two compare; the champion and the shipped one are judged besides."""
    return cost_models.judge(services, caller, key, body).response()


@router.get(
    "/compare",
    operation_id="compare_cost_models",
    summary="Compare two versions",
    response_model=ComparisonOut,
    responses=problems(errors.CostModelUnknown, errors.CostModelHasNoFiles, errors.NotJudgedTogether),
)
def compare_cost_models(
    caller: Reader, services: ServicesDep, first: VersionQuery, second: VersionQuery
) -> ComparisonOut:
    """On the programs that both were judged by, at the newest occasion."""
    return cost_models.compare(services, first, second)


@router.get(
    "/drift",
    operation_id="get_drift",
    summary="Is the cost model still right",
    response_model=DriftOut,
    responses=problems(errors.TargetUnknown),
)
def get_drift(caller: Reader, services: ServicesDep, target: TargetQuery = None) -> DriftOut:
    """How the newest measured batches compare with the order they were put in, by target and operator."""
    return drift.report(services, target)


@router.post(
    "/roll-back",
    operation_id="roll_back_cost_model",
    summary="Return to the version before",
    response_model=CostModelOut,
    responses=problems(errors.NothingToRollBack),
)
def roll_back_cost_model(caller: Administrator, services: ServicesDep) -> CostModelOut:
    """The version that the champion replaced is in use again, from each job's next round on."""
    return cost_models.roll_back(services, caller)


@router.get(
    "/{version}",
    operation_id="get_cost_model",
    summary="Show a cost model",
    response_model=CostModelDetail,
    responses=problems(errors.CostModelUnknown),
)
def get_cost_model(caller: Reader, services: ServicesDep, version: VersionPath) -> CostModelDetail:
    """Its card: what it was asked to learn from, what it learnt, how well it ranks."""
    return cost_models.show(services, version)


@router.post(
    "/{version}/cancel",
    operation_id="cancel_retraining",
    summary="Stop a training",
    response_model=CostModelOut,
    responses=problems(errors.CostModelUnknown, errors.CostModelNotTraining),
)
def cancel_retraining(caller: Administrator, services: ServicesDep, version: VersionPath) -> CostModelOut:
    return cost_models.cancel(services, caller, version)


@router.post(
    "/{version}/promote",
    operation_id="promote_cost_model",
    summary="Use a version",
    response_model=CostModelOut,
    responses=problems(
        errors.CostModelUnknown, errors.CostModelHasNoFiles, errors.NotJudgedTogether, errors.PromotionRefused
    ),
)
def promote_cost_model(caller: Administrator, services: ServicesDep, version: VersionPath) -> CostModelOut:
    """Make it the champion, if it is better than the one before and on no target worse by more than noise."""
    return cost_models.promote(services, caller, version)


@router.post(
    "/{version}/predict",
    operation_id="predict",
    summary="Rank schedules",
    response_model=PredictOut,
    responses=problems(
        errors.CostModelUnknown,
        errors.CostModelHasNoFiles,
        errors.TargetUnknown,
        errors.WorkloadUnknown,
        errors.ScheduleRefused,
        ChildFailed,
    ),
)
def predict(caller: Reader, services: ServicesDep, version: VersionPath, body: PredictIn) -> PredictOut:
    """What a version makes of schedules from their decisions alone, without TVM lowering any of them."""
    return predicting.predict(services, caller, version, body)


@router.get(
    "/{version}/files",
    operation_id="get_cost_model_files",
    summary="Download a version",
    response_class=FileResponse,
    responses={
        200: {
            "description": "A tar with the card, weights (safetensors), trees and the network as ONNX.",
            "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(errors.CostModelUnknown, errors.CostModelHasNoFiles),
    },
)
def get_cost_model_files(caller: Reader, services: ServicesDep, version: VersionPath) -> FileResponse:
    """The files that a worker ranks with; the entity tag is their sha256."""
    return _archive(*cost_models.files(services, version), version)


@router.get(
    "/{version}/training-set",
    operation_id="get_training_set",
    summary="Download what a version learnt from",
    response_class=FileResponse,
    responses={
        200: {
            "description": "A tar with a data set (Parquet), which `crosstune dataset import` takes.",
            "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(errors.CostModelUnknown, errors.CostModelHasNoFiles),
    },
)
def get_training_set(caller: Reader, services: ServicesDep, version: VersionPath) -> FileResponse:
    """The records of this service that it learnt from, as they were left by pruning; the entity tag is their sha256."""
    return _archive(*cost_models.files(services, version, training_set=True), f"{version}-training-set")


def _archive(path: FilePath, sha256: str, name: str) -> FileResponse:
    return FileResponse(path, media_type="application/x-tar", filename=f"{name}.tar", headers={"etag": f'"{sha256}"'})
