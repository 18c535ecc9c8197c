"""Parameters that routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from crosstune.service.schemas.common import NAME_PATTERN, Reference, Sha256

Limit = Annotated[int, Query(ge=1, le=200, description="Most items on a page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
DEFAULT_LIMIT = 50

NetworkPath = Annotated[Reference, Path(description="Id or name of a network.")]
TargetPath = Annotated[Reference, Path(description="Id or name of a target.")]
DevicePath = Annotated[Reference, Path(description="Id or name of a device.")]
WorkerPath = Annotated[Reference, Path(description="Id of a worker.")]
JobPath = Annotated[Reference, Path(description="Id of a job.")]
BuildPath = Annotated[Reference, Path(description="Id of a build.")]

NetworkQuery = Annotated[Reference | None, Query(description="Id or name of a network.")]
TargetQuery = Annotated[Reference | None, Query(description="Id or name of a target.")]
WorkloadQuery = Annotated[Sha256 | None, Query(description="Identity of a workload (sha256).")]
NameQuery = Annotated[str | None, Query(pattern=NAME_PATTERN, description="Made from the content when left out.")]
