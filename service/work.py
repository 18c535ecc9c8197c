"""Which steps a request makes, on which queue: the one place that knows the inputs of steps.

| kind | queue | input |
|---|---|---|
| import | `crosstune` | network_id |
| round | `hw.<target id>` | job_id; the worker picks the task |
| build_network | `hw.<target id>` | build_id |
| calibrate | `hw.<target id>` | target_id, device_id |
| load_records | `crosstune` | artifact_id |
| explore | `hw.<target id>` | target_id, trials left, method, seed |
| recheck | `hw.<target id>` | target_id, before |
| retrain | `training` | model_id, request |
| judge | `training` | versions |
| notify | `crosstune` | job_id, url; added by the end of a job (db.repositories.jobs) |
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from crosstune.db.repositories import steps
from crosstune.db.repositories.builds import BuildRow
from crosstune.db.repositories.jobs import JobRow
from crosstune.db.repositories.step_values import GENERAL_QUEUE as GENERAL_QUEUE
from crosstune.db.repositories.step_values import StepKind

RECHECKING = -80
EXPLORING = -50
"""Priority: jobs go first."""
TRAINING_QUEUE = "training"
"""Work that any machine can do beside other work, standing still while it measures."""


def target_queue(target_id: str) -> str:
    """Work that needs a device of this target."""
    return f"hw.{target_id}"


def enqueue_import(connection: Connection, project_id: str, network_id: str) -> str:
    return steps.enqueue(
        connection,
        kind=StepKind.IMPORT,
        queue=GENERAL_QUEUE,
        project_id=project_id,
        subject=network_id,
        input={"network_id": network_id},
    )


def enqueue_round(connection: Connection, job: JobRow) -> str:
    """The job's first round, or the next after a resume."""
    return steps.enqueue(
        connection,
        kind=StepKind.ROUND,
        queue=target_queue(job.target_id),
        project_id=job.project_id,
        job_id=job.id,
        priority=job.priority,
        input={"job_id": job.id},
    )


def enqueue_build(connection: Connection, build: BuildRow) -> str:
    return steps.enqueue(
        connection,
        kind=StepKind.BUILD_NETWORK,
        queue=target_queue(build.target_id),
        project_id=build.project_id,
        subject=build.id,
        input={"build_id": build.id},
    )


def enqueue_calibrate(connection: Connection, project_id: str, target_id: str, device_id: str) -> str:
    return steps.enqueue(
        connection,
        kind=StepKind.CALIBRATE,
        queue=target_queue(target_id),
        project_id=project_id,
        input={"target_id": target_id, "device_id": device_id},
    )


def enqueue_load(connection: Connection, project_id: str, artifact_id: str) -> str:
    return steps.enqueue(
        connection,
        kind=StepKind.LOAD_RECORDS,
        queue=GENERAL_QUEUE,
        project_id=project_id,
        subject=artifact_id,
        input={"artifact_id": artifact_id},
    )


def enqueue_explore(connection: Connection, project_id: str, target_key: int, request: dict[str, Any]) -> str:
    return steps.enqueue(
        connection,
        kind=StepKind.EXPLORE,
        queue=target_queue(request["target_id"]),
        project_id=project_id,
        target_key=target_key,
        priority=EXPLORING,
        input=request,
    )


def enqueue_recheck(connection: Connection, project_id: str, target_key: int, target_id: str, before: float) -> str:
    return steps.enqueue(
        connection,
        kind=StepKind.RECHECK,
        queue=target_queue(target_id),
        project_id=project_id,
        target_key=target_key,
        priority=RECHECKING,
        input={"target_id": target_id, "before": before},
    )


def enqueue_judge(connection: Connection, project_id: str, versions: list[str]) -> str:
    return steps.enqueue(
        connection,
        kind=StepKind.JUDGE,
        queue=TRAINING_QUEUE,
        project_id=project_id,
        input={"versions": versions},
    )


def enqueue_retrain(connection: Connection, project_id: str, model_id: str, request: dict[str, Any]) -> str:
    return steps.enqueue(
        connection,
        kind=StepKind.RETRAIN,
        queue=TRAINING_QUEUE,
        project_id=project_id,
        subject=model_id,
        input={"model_id": model_id, "request": request},
    )
