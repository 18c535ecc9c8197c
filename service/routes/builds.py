"""Builds: ask for one, look at it, download its artifact."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse

from crosstune.db.errors import IdempotencyConflict, IdempotencyInProgress
from crosstune.service import builds, errors
from crosstune.service.deps import IdempotencyKey, ServicesDep
from crosstune.service.principal import Reader, Submitter
from crosstune.service.problems import problems
from crosstune.service.routes.common import DEFAULT_LIMIT, BuildPath, Cursor, Limit, NetworkQuery, TargetQuery
from crosstune.service.schemas.builds import BuildIn, BuildOut
from crosstune.service.schemas.common import Page

router = APIRouter(prefix="/v1/builds", tags=["builds"])


@router.post(
    "",
    operation_id="create_build",
    summary="Ask for a build",
    status_code=202,
    response_model=BuildOut,
    responses=problems(
        errors.NetworkUnknown,
        errors.TargetUnknown,
        errors.NetworkNotReady,
        errors.NetworkUnusable,
        errors.NetworkBytesDeleted,
        errors.PinsRefused,
        IdempotencyConflict,
        IdempotencyInProgress,
    ),
)
def create_build(caller: Submitter, services: ServicesDep, body: BuildIn, key: IdempotencyKey = None) -> JSONResponse:
    """Compile a network for a target from what is known now, or from pinned schedules; verify and time it."""
    return builds.create(services, caller, key, body).response()


@router.get(
    "",
    operation_id="list_builds",
    summary="List builds",
    response_model=Page[BuildOut],
    responses=problems(errors.NetworkUnknown, errors.TargetUnknown, errors.CursorRefused),
)
def list_builds(
    caller: Reader,
    services: ServicesDep,
    network: NetworkQuery = None,
    target: TargetQuery = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[BuildOut]:
    return builds.page(services, caller, network, target, limit, cursor)


@router.get(
    "/{build}",
    operation_id="get_build",
    summary="Show a build",
    response_model=BuildOut,
    responses=problems(errors.BuildUnknown),
)
def get_build(caller: Reader, services: ServicesDep, build: BuildPath) -> BuildOut:
    return builds.show(services, caller, build)


@router.get(
    "/{build}/artifact",
    operation_id="get_artifact",
    summary="Download a build",
    response_class=FileResponse,
    responses={
        200: {
            "description": "The artifact, a tar that `crosstune.load` takes.",
            "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(errors.BuildUnknown, errors.BuildNotReady, errors.BuildFailed, errors.ArtifactGone),
    },
)
def get_artifact(caller: Reader, services: ServicesDep, build: BuildPath) -> FileResponse:
    """The bytes of the build; the entity tag is their sha256."""
    artifact = builds.artifact(services, caller, build)
    return FileResponse(
        artifact.path, media_type="application/x-tar", filename=f"{build}.tar", headers={"etag": f'"{artifact.sha256}"'}
    )
