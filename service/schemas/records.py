"""Records: the verdict on one schedule of one workload on one target."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from crosstune.service.schemas.common import In, Out, Reference, Text, Time


class ExportFormat(StrEnum):
    NDJSON = "ndjson"


class RecordOut(Out):
    id: str
    target: str
    workload: str
    schedule: str = Field(description="Identity of the schedule (sha256).")
    latency_s: float | None = Field(
        None, description="Median; a lower bound when the quality is censored; absent when it failed."
    )
    quality: str | None = None
    status: str = Field(description="valid, provisional, imported or withdrawn")
    invalidity: str | None = Field(None, description="Why there is no latency.")
    permanent: bool = Field(description="True when the schedule is never tried again.")
    source: str = Field(
        description="search, transfer (from another target), neighbour (like workload), default, import"
    )
    cost_model: str | None = Field(
        None, description="The version that proposed it; absent for the shipped one, and where none ranks."
    )
    tvm_version: str
    measurements: int = Field(description="Attempts behind the verdict.")
    updated_at: Time


class LoadOut(Out):
    """An upload of records that was accepted; GET /v1/steps/{step} says what came of it."""

    step: str
    sha256: str = Field(description="Of the upload.")


class WithdrawIn(In):
    """Whose measurements are taken back: a device's, a worker's, of some time, or all of these at once."""

    device: Reference | None = Field(default=None, description="Id or name of the device that measured.")
    worker: Reference | None = Field(default=None, description="Id of the worker that measured.")
    since: Time | None = Field(default=None, description="Measured then or later.")
    until: Time | None = Field(default=None, description="Measured then or before.")
    reason: Text = Field(min_length=1, description="Shown with the records and the cost models.")

    @model_validator(mode="after")
    def _somebody_is_needed(self) -> WithdrawIn:
        if self.device is None and self.worker is None:
            raise ValueError("give a device or a worker: what everybody measured is not withdrawn at once")
        return self


class WithdrawOut(Out):
    measurements: int = Field(description="Taken back now.")
    records: int = Field(description="Judged anew; those that nothing else speaks for are withdrawn.")
    cost_models: list[str] = Field(description="Versions that may have learnt from them.")


class ExportedMeasurement(Out):
    """One attempt behind a record."""

    latencies_s: list[float]
    quality: str
    status: str
    invalidity: str | None
    detail: str
    conditions: dict[str, Any]
    measured_at: float = Field(description="UTC, seconds since the epoch.")


class ExportedRecord(Out):
    """One line of an NDJSON export: a record with its trace and every attempt to measure it."""

    record: str
    target: str
    workload: str
    workload_name: str
    tvm_version: str
    schedule: str
    status: str
    latency_s: float | None
    quality: str | None
    invalidity: str | None
    source: str
    created_at: float = Field(description="UTC, seconds since the epoch.")
    trace: list[Any]
    measurements: list[ExportedMeasurement]
