"""Jobs: tune a network for a target within a budget."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from crosstune.service.schemas.common import (
    LARGEST_SEED,
    MAX_SECONDS,
    MAX_TRIALS,
    Failure,
    In,
    Labels,
    Out,
    Reference,
    Time,
)
from crosstune.service.schemas.schedules import Expectation


class JobState(StrEnum):
    QUEUED = "queued"
    WAITING_FOR_DEVICE = "waiting_for_device"
    RUNNING = "running"
    BUILDING = "building"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


FINAL_STATES = frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED})

Trials = Annotated[int, Field(ge=1, le=MAX_TRIALS, description="Candidates to measure, in all.")]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, description="Seconds of tuning from the first round.")]


class Budget(In):
    """Where a job stops; with both members at whichever is reached first."""

    trials: Trials | None = None
    seconds: Seconds | None = None

    @model_validator(mode="after")
    def _one_is_needed(self) -> Budget:
        if self.trials is None and self.seconds is None:
            raise ValueError('give trials, seconds or both, such as {"trials": 1000}')
        return self


class JobIn(In):
    network: Reference = Field(description="Id or name of a network.")
    target: Reference = Field(description="Id or name of a target.")
    budget: Budget
    whole_budget: bool = Field(
        False,
        description="Use all of the budget, although another minute is expected to gain less than 0.5 %.",
    )
    labels: Labels = Field(default_factory=dict)
    priority: int = Field(0, ge=-100, le=100, description="Higher goes first.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of the search.")
    webhook: str | None = Field(
        default=None,
        max_length=2000,
        pattern=r"^https?://[^\s/]",
        description="Address that gets the job by POST when it has ended, signed with the service's secret.",
    )


class JobResume(In):
    """More budget for a job that has ended, on top of what it had; one that had succeeded uses all of it."""

    budget: Budget


class JobBudget(Out):
    trials: int | None
    seconds: float | None


class JobTaskOut(Out):
    """One workload of the job with what is known of it on the job's target."""

    workload: str
    name: str
    weight: int
    flops: float
    trials: int = Field(description="Candidates measured in this job.")
    rounds: int
    untuned_latency_s: float | None = Field(None, description="Median latency of the default schedule.")
    best_latency_s: float | None = Field(None, description="Median latency of the best schedule.")
    exhausted: bool = Field(description="True when nothing is left to be tried.")


class JobOut(Out):
    id: str
    state: JobState
    network: str
    target: str
    budget: JobBudget
    whole_budget: bool = Field(description="False: it ends when another minute is expected to gain too little.")
    seed: int
    priority: int
    labels: dict[str, str]
    trials: int = Field(description="Candidates measured so far.")
    seconds: float = Field(description="Seconds of tuning so far.")
    rounds: int = Field(description="Rounds finished so far.")
    untuned_latency_s: float | None = Field(
        None, description="Sum over tasks of weight times default latency; known once every task has one."
    )
    best_latency_s: float | None = Field(
        None, description="Sum over tasks of weight times best latency; known once every task has one."
    )
    build: str | None = Field(None, description="The build that the job ended with.")
    stop_reason: str | None = Field(
        None, description="Why the search ended: trials used, time used, converged, cancelled, ..."
    )
    cost_models: list[str] = Field(
        default_factory=list,
        description="Versions of the cost model that ranked its candidates, in order of use; `shipped` comes with the "
        "package, `xgboost` and `random` are no versions.",
    )
    failure: Failure | None = Field(None, description="What failed, when the job has failed.")
    waiting_for: str | None = Field(None, description="What keeps the job from running, in a sentence.")
    waiting_since: Time | None = Field(None, description="When a device of the target was last there, or the submit.")
    created_at: Time
    started_at: Time | None = None
    finished_at: Time | None = None


class JobOutlook(Out):
    """What is to be expected of the search from here on."""

    seconds_left: float = Field(description="Of tuning, until the budget is used or the job has converged.")
    latency_s: float = Field(description="Sum over tasks of weight times latency that is expected then.")
    gain_per_minute: float = Field(description="Share of the latency that another minute is expected to take off.")


class JobDetail(JobOut):
    outlook: JobOutlook | None = Field(
        None, description="While the job is searching, from when every task has a latency."
    )
    tasks: list[JobTaskOut]


class JobPlanTask(Expectation):
    workload: str
    name: str
    weight: int
    flops: float
    known: str = Field(description="What the search starts from: measured, transferred, predicted or none.")
    best_latency_s: float | None = Field(None, description="Best measured on this very target, where it is known.")


class JobPlan(Expectation):
    """What a job would do; nothing was created. The expected latency is the sum over tasks of weight times measured or
    expected latency."""

    network: str
    target: str
    budget: JobBudget
    tasks: list[JobPlanTask]
    unsupported_operators: list[str] = Field(description="Empty for every network that is ready.")
    estimated_seconds: float | None = Field(None, description="Absent where nothing was measured to estimate from.")
    estimate_basis: str = Field(description="Where the estimate comes from, in a sentence.")
    device_live: bool = Field(description="False when no live worker could run it now.")


class JobEvent(Out):
    """The data of one server-sent event; its id is the sequence within the job."""

    sequence: int
    kind: str
    job: str
    at: Time
    data: dict[str, Any]
