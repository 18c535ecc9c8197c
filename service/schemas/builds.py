"""Builds: an immutable result, a network compiled for a target with pinned schedules."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from crosstune.service.schemas.common import Failure, In, Labels, Out, Reference, Sha256, Time
from crosstune.service.schemas.schedules import Expectation, Label


class BuildState(StrEnum):
    BUILDING = "building"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Nothing of it may be used: it was not compiled, or verification found it wrong."""


class RecordChoice(StrEnum):
    BEST = "best"
    """The best schedule of each workload that is known when the build is asked for: measured on the target, or else
    elsewhere; where nobody knows one, what the cost model holds for the fastest."""
    PINNED = "pinned"
    """Exactly the schedules named in `schedules`; other workloads get their default schedule."""


class BuildIn(In):
    network: Reference
    target: Reference
    records: RecordChoice = RecordChoice.BEST
    schedules: Annotated[dict[Sha256, Sha256], Field(max_length=10_000)] = Field(
        default_factory=dict, description="For `pinned`: workload to schedule, both sha256."
    )
    labels: Labels = Field(default_factory=dict)

    @model_validator(mode="after")
    def _schedules_go_with_pinned(self) -> BuildIn:
        if self.records is RecordChoice.PINNED and not self.schedules:
            raise ValueError("`pinned` needs `schedules`, a map of workload to schedule; or use `best`")
        if self.records is RecordChoice.BEST and self.schedules:
            raise ValueError("`schedules` goes with `records: pinned`; leave it out for `best`")
        return self


class PinnedScheduleOut(Expectation):
    workload: str
    schedule: str
    label: Label = Field(description="measured; transferred or predicted: never measured on this target.")
    latency_s: float | None = Field(
        None, description="Median when it was pinned; of a transferred one, where it was measured."
    )


class DefaultScheduleOut(Out):
    """A workload that has its default schedule although a better one was looked for."""

    workload: str
    label: Label = Label.DEFAULT
    reason: str = Field(description="Why there is no better one that can be used.")


class ArtifactOut(Out):
    sha256: str
    size_bytes: int
    kind: str


class BuildOut(Out):
    id: str
    state: BuildState
    network: str
    target: str
    job: str | None = Field(None, description="The job that made it, if one did.")
    schedules: list[PinnedScheduleOut] = Field(
        description="Workloads that are not listed get their default schedule; predicted ones are listed once built."
    )
    defaults: list[DefaultScheduleOut] = Field(
        description="Once built: workloads without a measured schedule that have the default one, and why."
    )
    tvm_version: str | None = None
    artifact: ArtifactOut | None = None
    tuned_latency_s: float | None = None
    untuned_latency_s: float | None = None
    reference_latency_s: float | None = Field(None, description="onnxruntime's, with the same cores and threads.")
    largest_error: float | None = Field(None, description="Largest output error against onnxruntime.")
    workloads_applied: int | None = None
    workloads_total: int | None = None
    manifest: dict[str, Any] | None = None
    failure: Failure | None = Field(
        None, description="verification: the compiled network was wrong; build-failed: there is none."
    )
    labels: dict[str, str]
    created_at: Time
    finished_at: Time | None = None
