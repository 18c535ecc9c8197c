"""Is the process alive, can it work, and what can it be asked."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from crosstune.service import health, metrics
from crosstune.service.deps import ServicesDep
from crosstune.service.principal import Reader
from crosstune.service.schemas.health import Liveness, Readiness

router = APIRouter(tags=["health"])


@router.get("/livez", operation_id="get_liveness", summary="Is the process alive", response_model=Liveness)
def get_liveness(caller: Reader) -> Liveness:
    return health.liveness()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Can the service work",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not ready; the members say why."}},
)
def get_readiness(caller: Reader, services: ServicesDep) -> JSONResponse:
    """200 when the database answers and has the right schema; no live worker is a warning."""
    found = health.readiness(services)
    return JSONResponse(found.model_dump(mode="json"), 200 if found.ready else 503)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Figures for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"description": "The text exposition format.", "content": {"text/plain": {}}}},
)
def get_metrics(caller: Reader, services: ServicesDep) -> Response:
    """Live workers, steps by state, and how well the newest measured batches were ranked, by target and operator."""
    text, content_type = metrics.exposition(services)
    return Response(text, headers={"content-type": content_type})


@router.get("/openapi.json", operation_id="get_openapi", summary="This description", include_in_schema=False)
def get_openapi(caller: Reader, request: Request) -> dict[str, Any]:
    schema: dict[str, Any] = request.app.openapi()
    return schema
