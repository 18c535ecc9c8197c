"""Steps as the API shows them."""

from __future__ import annotations

from crosstune.db.engine import reading
from crosstune.db.errors import NotFound
from crosstune.db.repositories import steps
from crosstune.service import lookups
from crosstune.service.errors import StepUnknown
from crosstune.service.principal import Principal
from crosstune.service.schemas.steps import StepDetail
from crosstune.service.services import Services


def show(services: Services, caller: Principal, step_id: str) -> StepDetail:
    """Raises StepUnknown, also for a step of another project."""
    with reading(services.engine) as connection:
        try:
            row = steps.get(connection, step_id)
        except NotFound as error:
            raise StepUnknown(step_id) from error
    if row.project_id != caller.project_id:
        raise StepUnknown(step_id)
    return StepDetail(
        step=row.id,
        kind=row.kind,
        state=row.state,
        job=row.job_id,
        attempts=row.attempt,
        message=row.last_exit,
        created_at=lookups.utc(row.created_at),
        started_at=lookups.utc_or_none(row.started_at),
        ended_at=lookups.utc_or_none(row.ended_at),
    )
