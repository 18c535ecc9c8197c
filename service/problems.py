"""Every error as problem+json (RFC 9457): `type`, `title`, `status`, `detail`, `trace_id` and facts.

One table maps the errors that crosstune and its database raise on purpose to HTTP; all else that can go wrong
(validation, unknown path, wrong method, too large a body) is brought into the same form here, a defect at the edge.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from crosstune.db.errors import (
    IdempotencyConflict,
    IdempotencyInProgress,
    IllegalTransition,
    NameTaken,
    NotFound,
    SchemaOutdated,
    StoreError,
)
from crosstune.service import errors
from crosstune.tuner.contracts import ChildFailed, CrosstuneError, NetworkRefused, TargetRefused

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:crosstune:problem:"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    status: int
    slug: str
    title: str

    @property
    def type(self) -> str:
        return TYPE_PREFIX + self.slug


PROBLEMS: dict[type[Exception], ProblemKind] = {
    errors.NetworkUnknown: ProblemKind(404, "network-unknown", "Unknown network"),
    errors.TargetUnknown: ProblemKind(404, "target-unknown", "Unknown target"),
    errors.DeviceUnknown: ProblemKind(404, "device-unknown", "Unknown device"),
    errors.JobUnknown: ProblemKind(404, "job-unknown", "Unknown job"),
    errors.BuildUnknown: ProblemKind(404, "build-unknown", "Unknown build"),
    errors.WorkloadUnknown: ProblemKind(404, "workload-unknown", "Unknown workload"),
    errors.StepUnknown: ProblemKind(404, "step-unknown", "Unknown step"),
    errors.WorkerUnknown: ProblemKind(404, "worker-unknown", "Unknown worker"),
    errors.CostModelUnknown: ProblemKind(404, "cost-model-unknown", "Unknown cost model"),
    errors.CostModelHasNoFiles: ProblemKind(409, "cost-model-without-files", "Cost model cannot be used"),
    errors.CostModelNotTraining: ProblemKind(409, "cost-model-not-training", "Cost model is not in training"),
    errors.RetrainRunning: ProblemKind(409, "retrain-running", "A cost model is in training"),
    errors.NotJudgedTogether: ProblemKind(409, "not-judged-together", "No common ground to compare on"),
    errors.PromotionRefused: ProblemKind(409, "promotion-refused", "Gates were not passed"),
    errors.ScheduleRefused: ProblemKind(422, "schedule-refused", "Schedules cannot be read"),
    errors.NothingToRollBack: ProblemKind(409, "nothing-to-roll-back", "There is no version before"),
    NameTaken: ProblemKind(409, "name-taken", "Name belongs to other content"),
    NotFound: ProblemKind(404, "unknown", "There is no such thing"),
    IllegalTransition: ProblemKind(409, "illegal-transition", "Not possible in this state"),
    IdempotencyConflict: ProblemKind(422, "idempotency-key-reused", "Idempotency key was used before"),
    IdempotencyInProgress: ProblemKind(409, "idempotency-key-running", "First request is still running"),
    SchemaOutdated: ProblemKind(503, "schema-outdated", "Database has another schema"),
    errors.NetworkNotReady: ProblemKind(409, "network-not-ready", "Network is not ready"),
    errors.NetworkUnusable: ProblemKind(409, "network-unusable", "Network was refused"),
    errors.NetworkBytesDeleted: ProblemKind(409, "network-deleted", "Network bytes were deleted"),
    errors.NetworkInUse: ProblemKind(409, "network-in-use", "Network is in use"),
    errors.ShapeRefused: ProblemKind(422, "shape-refused", "Shape cannot be used"),
    errors.WebhookRefused: ProblemKind(422, "webhook-refused", "Webhook cannot be called"),
    errors.UploadEmpty: ProblemKind(422, "upload-empty", "Nothing was uploaded"),
    errors.JobIsOver: ProblemKind(409, "job-is-over", "Job has ended"),
    errors.JobNotOver: ProblemKind(409, "job-not-over", "Job has not ended"),
    errors.BudgetRefused: ProblemKind(422, "budget-refused", "Budget changes nothing"),
    errors.BuildNotReady: ProblemKind(409, "build-not-ready", "Build is not ready"),
    errors.BuildFailed: ProblemKind(409, "build-failed", "Build failed"),
    errors.ArtifactGone: ProblemKind(410, "artifact-gone", "Artifact was deleted"),
    errors.PinsRefused: ProblemKind(422, "pins-refused", "Pinned schedules cannot be used"),
    errors.NoDeviceForTarget: ProblemKind(409, "no-device", "No device for this target"),
    errors.SelectionRefused: ProblemKind(422, "selection-refused", "Selection cannot be used"),
    errors.CursorRefused: ProblemKind(422, "cursor-refused", "Cursor cannot be used"),
    errors.EventIdRefused: ProblemKind(422, "event-id-refused", "Event id cannot be used"),
    errors.NotLoopback: ProblemKind(403, "not-loopback", "Only this machine is served"),
    errors.ScopeMissing: ProblemKind(403, "scope-missing", "Scope is missing"),
    errors.HostRefused: ProblemKind(400, "host-refused", "Host is not served"),
    errors.OriginRefused: ProblemKind(403, "origin-refused", "Origin is not trusted"),
    errors.ContentTypeRefused: ProblemKind(415, "content-type-refused", "Content type is not taken"),
    errors.BodyTooLarge: ProblemKind(413, "body-too-large", "Body is too large"),
    errors.TooBusy: ProblemKind(429, "too-busy", "Too many requests at once"),
    errors.LimitReached: ProblemKind(507, "limit-reached", "No room"),
    NetworkRefused: ProblemKind(422, "network-refused", "Network cannot be imported"),
    TargetRefused: ProblemKind(422, "target-refused", "Target cannot be used"),
    ChildFailed: ProblemKind(503, "child-failed", "A helper process failed"),
}
INVALID_REQUEST = ProblemKind(422, "invalid-request", "Request is not valid")
INTERNAL = ProblemKind(500, "internal", "Something went wrong on our side")
DATABASE_BUSY = ProblemKind(503, "database-unavailable", "Database does not answer")


class InvalidField(BaseModel):
    """One part of a request that is not valid."""

    where: str = Field(description="Path of the value: body.budget.trials, query.limit, ...")
    problem: str


class Problem(BaseModel):
    """What went wrong (RFC 9457); further members are facts about this problem."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable name of the kind of problem.")
    title: str
    status: int
    detail: str = Field(description="What was wrong and what would be right.")
    trace_id: str = Field(description="Names this request in the service's log.")
    errors: list[InvalidField] | None = Field(None, description="The invalid parts of a request that is not valid.")


def kind_of(error: Exception) -> ProblemKind:
    for base in type(error).__mro__:
        if base in PROBLEMS:
            return PROBLEMS[base]
    return INTERNAL


def problems(*kinds: type[Exception]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can raise `kinds`; what any route can answer is added by the application."""
    listed: dict[int, list[str]] = {}
    for kind in kinds:
        listed.setdefault(PROBLEMS[kind].status, []).append(PROBLEMS[kind].title)
    return {status: answer(titles) for status, titles in sorted(listed.items())}


def answer(titles: Sequence[str]) -> dict[str, Any]:
    """An OpenAPI response of one status, for problems with these titles."""
    return {
        "description": "; ".join(titles),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def problem_body(kind: ProblemKind, detail: str, trace_id: str, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    body = {"type": kind.type, "title": kind.title, "status": kind.status, "detail": detail, "trace_id": trace_id}
    return {**(facts or {}), **body}


def problem_of(error: Exception, trace_id: str) -> tuple[int, dict[str, Any]]:
    kind = kind_of(error)
    facts = dict(getattr(error, "facts", {}))
    if isinstance(error, NetworkRefused):
        facts["code"] = error.code
    if isinstance(error, StoreError):
        facts.update(vars(error))
    return kind.status, problem_body(kind, str(error), trace_id, facts)


def encoded(body: dict[str, Any]) -> bytes:
    """JSON that any client can read: text a user sent may hold lone surrogates, which UTF-8 cannot carry."""
    return json.dumps(body, ensure_ascii=True, default=str).encode("ascii")


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return encoded(content)


def install(app: FastAPI) -> None:
    """Make every error that a route or the framework raises a problem+json answer."""
    app.add_exception_handler(CrosstuneError, _on_own_error)
    app.add_exception_handler(StoreError, _on_own_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(OperationalError, _on_database_error)


def _trace_id(request: Request) -> str:
    return str(request.scope.get("crosstune.trace_id", ""))


async def _on_own_error(request: Request, error: Exception) -> ProblemResponse:
    if kind_of(error) is INTERNAL:
        raise error
    status, body = problem_of(error, _trace_id(request))
    return ProblemResponse(body, status)


async def _on_invalid(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    fields = [
        {"where": ".".join(str(part) for part in item["loc"]), "problem": item["msg"].removeprefix("Value error, ")}
        for item in error.errors()
    ]
    detail = "; ".join(f"{field['where']}: {field['problem']}" for field in fields[:5])
    return ProblemResponse(problem_body(INVALID_REQUEST, detail, _trace_id(request), {"errors": fields}), 422)


async def _on_http_exception(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    slug = status.phrase.lower().replace(" ", "-")
    body = problem_body(
        ProblemKind(status.value, slug, status.phrase), _http_detail(request, error), _trace_id(request)
    )
    return ProblemResponse(body, status.value, headers=dict(error.headers or {}))


def _http_detail(request: Request, error: HTTPException) -> str:
    path = request.url.path[:200]
    if error.status_code == 404:
        return f"there is nothing at {path}; /openapi.json lists what there is"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return f"{request.method} is not possible at {path}" + (f"; use {allowed}" if allowed else "")
    return str(error.detail)


async def _on_database_error(request: Request, error: Exception) -> ProblemResponse:
    logger.error("database error, trace %s: %s", _trace_id(request), error)
    detail = "the database does not answer or is busy; nothing was changed, try again in a moment"
    return ProblemResponse(problem_body(DATABASE_BUSY, detail, _trace_id(request)), 503, headers={"Retry-After": "1"})
