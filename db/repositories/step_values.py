"""The words and values of the table of durable work."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

CAUSE: ContextVar[str | None] = ContextVar("cause", default=None)
"""What adds steps now, as a W3C traceparent; it is kept in their input, for traces."""
TRACEPARENT = "traceparent"
GENERAL_QUEUE = "crosstune"
"""Work that any machine can do."""


def with_cause(input: dict[str, Any]) -> dict[str, Any]:
    """A step's input with what added it, where that is traced."""
    cause = CAUSE.get()
    return input if cause is None else {**input, TRACEPARENT: cause}


class StepState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepKind(StrEnum):
    IMPORT = "import"
    CALIBRATE = "calibrate"
    ROUND = "round"
    BUILD_NETWORK = "build_network"
    EXPLORE = "explore"
    RETRAIN = "retrain"
    JUDGE = "judge"
    LOAD_RECORDS = "load_records"
    NOTIFY = "notify"
    RECHECK = "recheck"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do a step, until `lease_until` or until somebody else has a later `attempt`."""

    step_id: str
    step_key: int
    kind: str
    queue: str
    owner: str
    attempt: int
    lease_until: float
    project_id: str
    job_id: str | None
    target_key: int | None
    workload_key: int | None
    subject: str | None
    input: Any
    tries: int
    """Claims of this step that were not given back, this one included."""


@dataclass(frozen=True, slots=True)
class StepRow:
    id: str
    key: int
    kind: str
    queue: str
    state: str
    project_id: str
    job_id: str | None
    attempt: int
    owner: str | None
    lease_until: float
    last_exit: str | None
    subject: str | None
    input: Any
    created_at: float
    started_at: float | None
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Beat:
    """Step ids: those still held, and those of them whose job is to be cancelled or has ended."""

    held: frozenset[str]
    cancelled: frozenset[str]


@dataclass(frozen=True, slots=True)
class Runnable:
    step_id: str
    kind: str
    queue: str
    job_id: str | None


@dataclass(frozen=True, slots=True)
class Swept:
    cancelled_jobs: tuple[str, ...]
    poisoned_steps: tuple[str, ...]
