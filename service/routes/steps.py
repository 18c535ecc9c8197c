"""Steps: what became of a piece of work that was accepted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from crosstune.service import errors, steps_shown
from crosstune.service.deps import ServicesDep
from crosstune.service.principal import Reader
from crosstune.service.problems import problems
from crosstune.service.schemas.common import Reference
from crosstune.service.schemas.steps import StepDetail

router = APIRouter(prefix="/v1/steps", tags=["steps"])
StepPath = Annotated[Reference, Path(description="Id of a step.")]


@router.get(
    "/{step}",
    operation_id="get_step",
    summary="Show a step",
    response_model=StepDetail,
    responses=problems(errors.StepUnknown),
)
def get_step(caller: Reader, services: ServicesDep, step: StepPath) -> StepDetail:
    """Whether it waits, runs or has ended, and what came of it."""
    return steps_shown.show(services, caller, step)
