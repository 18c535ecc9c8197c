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
    NONE = "none"
    """Nothing is known."""


class BestSchedule(Out):
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


class BestSchedules(Out):
    target: str
    network: str | None = None
    latency_s: float | None = Field(
        None, description="Sum of weight times latency, when every workload is labelled `measured`."
    )
    schedules: list[BestSchedule]
