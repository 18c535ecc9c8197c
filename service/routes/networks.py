"""Networks: upload, look at, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from crosstune.db.errors import IdempotencyConflict, IdempotencyInProgress, NameTaken
from crosstune.service import errors, networks
from crosstune.service.deps import IdempotencyKey, ServicesDep
from crosstune.service.principal import Reader, Submitter
from crosstune.service.problems import problems
from crosstune.service.routes.common import DEFAULT_LIMIT, Cursor, Limit, NameQuery, NetworkPath
from crosstune.service.schemas.common import Page
from crosstune.service.schemas.networks import NetworkOut, NetworkState, NetworkTasks

router = APIRouter(prefix="/v1/networks", tags=["networks"])

ShapeQuery = Annotated[
    list[Annotated[str, Query(max_length=300)]],
    Query(max_length=64, description="Sizes of one input, such as `input:1,3,224,224`; repeat for more inputs."),
]
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of an ONNX file, without external data.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
    }
}


@router.post(
    "",
    operation_id="create_network",
    summary="Upload a network",
    status_code=202,
    response_model=NetworkOut,
    responses={
        200: {"model": NetworkOut, "description": "The same content is there already."},
        202: {"description": "Stored; it will be imported."},
        **problems(
            NameTaken,
            errors.ShapeRefused,
            errors.UploadEmpty,
            errors.BodyTooLarge,
            errors.ContentTypeRefused,
            IdempotencyConflict,
            IdempotencyInProgress,
            errors.LimitReached,
        ),
    },
    openapi_extra=UPLOAD_BODY,
)
async def create_network(
    request: Request,
    caller: Submitter,
    services: ServicesDep,
    key: IdempotencyKey = None,
    name: NameQuery = None,
    shape: ShapeQuery = [],  # noqa: B006  FastAPI copies it
) -> JSONResponse:
    """Store the bytes of an ONNX file and import it: 202 when it is new, 200 when the same content is there already.

    A new network is `importing`, then `ready` with its tasks, or `refused` with the reason.
    """
    shapes = networks.parse_shapes(shape)
    incoming = await networks.receive(services, request.stream())
    reply = await run_in_threadpool(networks.create, services, caller, key, incoming, name, shapes)
    return reply.response()


@router.get(
    "",
    operation_id="list_networks",
    summary="List networks",
    response_model=Page[NetworkOut],
    responses=problems(errors.CursorRefused),
)
def list_networks(
    caller: Reader,
    services: ServicesDep,
    state: Annotated[NetworkState | None, Query()] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Page[NetworkOut]:
    return networks.page(services, caller, state, limit, cursor)


@router.get(
    "/{network}",
    operation_id="get_network",
    summary="Show a network",
    response_model=NetworkOut,
    responses=problems(errors.NetworkUnknown),
)
def get_network(caller: Reader, services: ServicesDep, network: NetworkPath) -> NetworkOut:
    return networks.show(services, caller, network)


@router.get(
    "/{network}/tasks",
    operation_id="get_network_tasks",
    summary="Show a network's workloads",
    response_model=NetworkTasks,
    responses=problems(errors.NetworkUnknown),
)
def get_network_tasks(caller: Reader, services: ServicesDep, network: NetworkPath) -> NetworkTasks:
    """The workloads that the network is cut into; none until it is ready."""
    return networks.tasks(services, caller, network)


@router.delete(
    "/{network}",
    operation_id="delete_network",
    summary="Delete a network",
    status_code=204,
    response_class=Response,
    responses=problems(errors.NetworkUnknown, errors.NetworkInUse),
)
def delete_network(caller: Submitter, services: ServicesDep, network: NetworkPath) -> Response:
    """Delete the network's bytes and free its name; jobs, builds and records that came of it stay."""
    networks.delete(services, caller, network)
    return Response(status_code=204)
