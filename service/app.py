"""The application: routes, edge, problems and what lives as long as the process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from sqlalchemy import Engine

from crosstune import __version__
from crosstune.service import openapi, problems
from crosstune.service.edge import Edge
from crosstune.service.routes import (
    builds,
    cost_models,
    devices,
    health,
    jobs,
    networks,
    records,
    schedules,
    steps,
    targets,
)
from crosstune.service.services import Services
from crosstune.service.settings import Settings

logger = logging.getLogger(__name__)

DESCRIPTION = (
    "Makes neural networks faster on given hardware and remembers what it learnt. "
    "Durations and latencies are seconds, sizes bytes, times UTC."
)
ROUTERS = (networks, targets, devices, jobs, builds, schedules, records, cost_models, steps, health)


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """The service as an ASGI application; `engine` replaces the one that the settings name."""
    services = Services(settings, engine)
    app = FastAPI(
        title="crosstune",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        lifespan=_lifespan,
    )
    app.state.services = services
    app.add_middleware(Edge, settings=settings)
    problems.install(app)
    for module in ROUTERS:
        app.include_router(module.router)
    openapi.install(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    await run_in_threadpool(services.open)
    worker: Any = None
    if services.settings.embedded_worker:
        from crosstune.service.worker import start_embedded

        worker = await run_in_threadpool(start_embedded, services.settings, services.engine)
        services.hardware.borrowed = lambda: worker.context.template
    services.hub.start()
    try:
        yield
    finally:
        await services.hub.stop()
        if worker is not None:
            await run_in_threadpool(worker.stop)
        services.close()
