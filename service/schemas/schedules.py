"""The best known schedules, each labelled with how it is known."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from crosstune.service.schemas.common import Out


class Label(StrEnum):
    MEASURED = "measured"
    """Measured on this very target with this very TVM."""
    TRANSFERRED = "transferred"
    """Measured elsewhere: on another target, or with another TVM; never yet here."""
    PREDICTED = "predicted"
    """No schedule is known; the latency is told from other workloads and other hardware."""
    DEFAULT = "default"
    """In builds: the default schedule, because another one that was wanted cannot be used."""
    NONE = "none"
    """Nothing is known."""


class Expectation(Out):
    """What tuning is expected to reach on the target."""

    expected_latency_s: float | None = Field(
        None, description="Median of what tuning is expected to reach, where that is not measured and can be told."
    )
    expected_low_s: float | None = Field(None, description="Low end of the 80 % interval.")
    expected_high_s: float | None = Field(None, description="High end of the 80 % interval.")


class BestSchedule(Expectation):
    workload: str
    name: str
    weight: int = Field(description="How often one inference of the network calls it; 1 for a single workload.")
    flops: float
    label: Label
    latency_s: float | None = Field(None, description="Median; on `from_target`, which need not be the one asked for.")
    quality: str | None = Field(None, description="quick or full")
    schedule: str | None = Field(None, description="Identity of the schedule (sha256).")
    from_target: str | None = Field(None, description="Where it was measured.")
    tvm_version: str | None = None
    trace: list[Any] | None = Field(None, description="TVM trace, with `traces=true`.")


class BestSchedules(Expectation):
    """The expected latency is the sum of weight times measured or expected latency, when every workload has one and not
    all are measured."""

    target: str
    network: str | None = None
    latency_s: float | None = Field(
        None, description="Sum of weight times latency, when every workload is labelled `measured`."
    )
    schedules: list[BestSchedule]
